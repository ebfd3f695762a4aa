"""A client with several uplinks or addresses: its packets leave where they can be answered, and the link recovers.

a  10.0.0.1, 10.0.1.1  == veth0, veth1 ==  b  10.0.0.2, 10.0.1.2; the server is at 10.99.0.1 and fd99::1
"""

from __future__ import annotations

import re
import time

import pytest

from tests.netns.lab import PORT, STARTED, Daemon, Lab, far, firewall, start_client, start_server, until

SERVER, SERVER6 = "10.99.0.1", "fd99::1"


def start_configured_pair(lab: Lab, endpoint: str, *client: str) -> Daemon:
    """Start both ends with configuration files, in which the client has a port of its own; return the server."""
    identities = {name: lab.new_identity(f"{name}.key") for name in ("here", "there")}
    daemons = []
    for machine, name, other, lines, peer in (
        (lab.b, "there", "here", ("Address = 10.9.0.1/24", f"ListenPort = {PORT}", "Transport = auto"), ()),
        (lab.a, "here", "there", ("Address = 10.9.0.2/24", "ListenPort = 4242"), (f"Endpoint = {endpoint}", *client)),
    ):
        file = lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        own, allowed = f"PrivateKey = {identities[name][0].read_text()}", "AllowedIPs = 10.9.0.0/24"
        public = f"PublicKey = {identities[other][1]}"
        file.write_text("\n".join(["[Interface]", own, *lines, "[Peer]", public, allowed, *peer]))
        daemons.append(machine.vpntun("up", file))
        daemons[-1].wait_for(STARTED)
    lab.ping(lab.a, "10.9.0.1")
    return daemons[0]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_route_moves_to_another_uplink_and_back(lab: Lab, transport: str) -> None:
    lab.cable(lab.a, "veth1", lab.b, "veth1")
    lab.a.run("sh", "-ec", f"ip addr add 10.0.1.1/24 dev veth1; ip route add {SERVER} via 10.0.0.2")
    lab.b.run("sh", "-ec", f"ip addr add 10.0.1.2/24 dev veth1; ip addr add {SERVER}/32 dev lo")
    for device, network in (("veth0", "10.0.0.0/24"), ("veth1", "10.0.1.0/24")):
        lab.b.run(firewall()[0], "-w", "-A", "INPUT", "-i", device, "!", "-s", network, "-j", "DROP")
    server = start_configured_pair(lab, f"{SERVER}:{PORT}", f"Transport = {transport}")
    for gateway in ("10.0.1.2", "10.0.0.2"):
        lab.a.run("ip", "route", "replace", SERVER, "via", gateway)
        lab.ping(lab.b, "10.9.0.2", within=3)
        lab.ping(lab.a, "10.9.0.1", within=1)
    assert server.log.count(" now (it was at ") == 2


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_address_in_use_is_replaced_by_another(lab: Lab, transport: str, version: int) -> None:
    start_configured_pair(
        lab, f"[{lab.b.six}]:{PORT}" if version == 6 else f"{lab.b.four}:{PORT}", f"Transport = {transport}"
    )
    former, new = ("fd01::1/64", "fd01::7/64") if version == 6 else ("10.0.0.1/24", "10.0.0.7/24")
    lab.a.run("sh", "-ec", f"ip addr del {former} dev veth0; ip addr add {new} dev veth0{' nodad' * (version == 6)}")
    lab.ping(lab.b, "10.9.0.2", within=3)
    lab.ping(lab.a, "10.9.0.1", within=1)


def start_over_tcp(lab: Lab, transport: str, host: str) -> str:
    """Start both ends where TCP alone can be used, and return the client's address in the tunnel."""
    if transport == "auto":
        lab.block("udp")
    start_server(lab)
    start_client(lab, "--transport", transport, host=host)
    lab.ping(lab.a, far(lab))
    return lab.a.address_of("tun11")


def wait_for_a_dial(lab: Lab) -> None:
    """Wait until the client is dialling, and gets no answer."""
    until(lambda: "SYN-SENT" in lab.a.run("ss", "--tcp", "--numeric").stdout, 10)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_a_dial_by_an_uplink_that_leads_nowhere_does_not_delay_the_one_from_a_new_address(
    lab: Lab, transport: str
) -> None:
    lab.cable(lab.a, "veth1", lab.b, "veth1")
    client = start_over_tcp(lab, transport, lab.b.four)
    neighbour = "ip addr add 10.0.1.1/24 dev veth1; ip neigh add 10.0.1.2 dev veth1 lladdr 02:00:00:00:00:01"
    lab.a.run("sh", "-ec", f"{neighbour}; ip route add {lab.b.four} via 10.0.1.2; ip addr flush dev veth0")
    wait_for_a_dial(lab)
    lab.a.run("sh", "-ec", f"ip addr add 10.0.0.7/24 dev veth0; ip route del {lab.b.four} via 10.0.1.2")
    lab.ping(lab.b, client, within=3)
    lab.ping(lab.a, far(lab), within=1)


@pytest.mark.parametrize("transport", ["auto", "tcp"])
def test_an_uplink_that_gets_an_address_of_its_own_no_longer_borrows_that_of_another(lab: Lab, transport: str) -> None:
    lab.cable(lab.a, "veth1", lab.b, "veth1")
    lab.a.run("sh", "-ec", f"ip addr add fd11::1/64 dev veth1 nodad; ip -6 route add {SERVER6} via fd01::2 dev veth0")
    lab.b.run("ip", "addr", "add", f"{SERVER6}/128", "dev", "lo")
    client = start_over_tcp(lab, transport, SERVER6)
    lab.b.run(firewall()[1], "-w", "-A", "INPUT", "-p", "tcp", "!", "-s", "fd01::/64", "-j", "DROP")
    lab.a.run("ip", "addr", "del", "fd01::1/64", "dev", "veth0")
    wait_for_a_dial(lab)
    lab.a.run("ip", "addr", "add", "fd01::7/64", "dev", "veth0")
    lab.ping(lab.b, client, within=5)  # two seconds of them before the address is no longer tentative
    lab.ping(lab.a, far(lab), within=1)


def test_an_uplink_without_an_address_of_its_own_does_not_borrow_the_tunnels(lab: Lab) -> None:
    lan = "ip link add lan type veth peer name its-end; ip link set its-end up; ip link set lan up"
    local = "ip addr flush dev veth0; ip addr add fe80::{}/64 dev veth0 nodad"
    to_server = f"ip addr add 2001:db8:f00::1/64 dev lan nodad; ip route add {SERVER6} via fe80::b dev veth0"
    lab.a.run("sh", "-ec", f"{lan}; {local.format('a')}; {to_server}")
    to_lan = f"ip addr add {SERVER6}/128 dev lo nodad; ip route add 2001:db8:f00::/48 via fe80::a dev veth0"
    lab.b.run("sh", "-ec", f"{local.format('b')}; {to_lan}")
    server = start_server(lab)
    start_client(lab, host=SERVER6)  # its address in the tunnel has more bits in common with the server's
    lab.ping(lab.a, far(lab), within=3)
    server.wait_for("connected to [2001:db8:f00::1]:")


@pytest.mark.long
@pytest.mark.timeout(120)
def test_the_network_of_this_host_was_down(lab: Lab) -> None:
    start_server(lab)
    start_client(lab, "--transport", "udp")
    lab.ping(lab.a, far(lab))
    lab.a.run("ip", "link", "set", "veth0", "down")
    time.sleep(40)  # so long that the client searches, and its pauses have grown
    lab.a.run("ip", "link", "set", "veth0", "up")
    lab.ping(lab.a, far(lab), within=2)


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_port_whose_packets_a_router_loses_is_replaced(lab: Lab) -> None:
    server = start_server(lab)
    start_client(lab, "--transport", "udp")
    lab.ping(lab.a, far(lab))
    port = re.search(r"connected to 10\.0\.0\.1:(\d+)", server.log)
    assert port
    lab.b.run(firewall()[0], "-w", "-A", "INPUT", "-p", "udp", "--sport", port[1], "-j", "DROP")
    assert lab.ping(lab.a, far(lab), within=45) > 5
    assert server.log.count(" now (it was at ") == 1
