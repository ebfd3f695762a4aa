"""Routing, DNS and hook lines: how `vpntun up` applies Table, FwMark, DNS and hooks, and undoes them. Cases 26 to 28.

    a  10.0.0.1, fd01::1  ==veth0==  10.0.0.2, fd01::2  b, the router to the rest of the world

In the tunnel a is 10.9.0.2 and fd09::2. b is the server at 198.51.100.1 and 2001:db8:51::1. It also answers pings to
192.0.2.1, 172.20.0.1, 2001:db8::1 and fd20::1, whether they arrive through the tunnel or beside it. A sniffer in b
records the packets that arrive beside the tunnel.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.documents import blocks
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, firewall, until
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.netconf.dns import entry_for
from vpntun.runtime.child import SYSTEM_PATH

SERVER, SERVER6 = "198.51.100.1", "2001:db8:51::1"
WORLD, WORLD6 = "192.0.2.1", "2001:db8::1"
PRIVATE, PRIVATE6 = "172.20.0.1", "fd20::1"
FULL = "0.0.0.0/0, ::/0"
MARK = 51820
SECONDS = 20.0  # limit for a start, and for the first answer, on a busy machine

WATCH = """
import ipaddress, socket
watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
watch.bind(("veth0", 3))
print("watching", flush=True)
while True:
    packet, (_, protocol, kind, *_) = watch.recvfrom(65535)
    if kind != socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD):
        there = packet[16:20] if protocol == 0x0800 else packet[24:40]
        print("to", ipaddress.ip_address(there), len(packet), flush=True)
"""


class World:
    """Both machines, the running server, and the client's file."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.b = lab, lab.a, lab.b
        lend(self.b, SERVER, SERVER6, WORLD, WORLD6, PRIVATE, PRIVATE6)
        self.a.run("sh", "-ec", f"ip route add default via {self.b.four}; ip -6 route add default via {self.b.six}")
        self._client, self._stranger, self._server = (KeyPair.generate() for _ in range(3))
        self._watch = self.b.popen(sys.executable, "-c", WATCH)
        self._read = 0
        self._size = 100
        file = self._write(
            "srv",
            f"[Interface]\nPrivateKey = {format_key(self._server.private)}\nAddress = 10.9.0.1/24, fd09::1/64\n"
            f"ListenPort = {PORT}\nTransport = auto\n"
            f"[Peer]\nPublicKey = {format_key(self._client.public)}\nAllowedIPs = 10.9.0.2, fd09::2\n",
        )
        self.server = self.b.vpntun("up", file)
        self.before = self.state()
        self._watch.wait_for("watching", SECONDS)
        self.server.wait_for(STARTED, SECONDS)

    def write(
        self,
        allowed: str = FULL,
        *lines: str,
        name: str = "cli",
        address: str = "10.9.0.2/24, fd09::2/64",
        endpoint: str = SERVER,
        transport: str = "udp",
    ) -> Path:
        """Write the client's file, with these lines in [Interface]. The server knows only the client named cli."""
        host = f"[{endpoint}]" if ":" in endpoint else endpoint
        own = self._client if name == "cli" else self._stranger
        interface = [f"PrivateKey = {format_key(own.private)}", f"Address = {address}", *lines]
        peer = [f"PublicKey = {format_key(self._server.public)}", f"Endpoint = {host}:{PORT}"]
        peer += [f"AllowedIPs = {allowed}", f"Transport = {transport}"]
        return self._write(name, "\n".join(["[Interface]", *interface, "[Peer]", *peer, ""]))

    def up(self, allowed: str = FULL, *lines: str, **more: str) -> Daemon:
        """Write the client's file and start the client; return once it is connected."""
        return self.start(self.write(allowed, *lines, **more))

    def start(self, file: Path, env: Mapping[str, str] | None = None) -> Daemon:
        daemon = self.a.vpntun("up", file, env=env)
        daemon.wait_for(STARTED, SECONDS)
        self.lab.ping(self.a, "10.9.0.1", SECONDS)
        return daemon

    def down(self, env: Mapping[str, str] | None = None) -> None:
        self.a.run(sys.executable, "-m", "vpntun", "down", "cli", env=env)

    def through(self, *addresses: str) -> None:
        """Assert that each address answers, and that no packet to it went beside the tunnel."""
        for address in addresses:
            self.lab.ping(self.a, address)
            assert address not in self.seen(), f"a ping to {address} went beside the tunnel"

    def beside(self, *addresses: str) -> None:
        """Assert that each address answers, and that the packets to it went beside the tunnel."""
        for address in addresses:
            self.lab.ping(self.a, address)
            assert address in self.seen(), f"the ping to {address} went through the tunnel"

    def nowhere(self, *addresses: str) -> None:
        """Assert that no address answers, and that no packet to one went beside the tunnel."""
        each = " & ".join(f"(ping -n -c2 -i0.1 -w1 {address} && echo answer)" for address in addresses)
        assert "answer" not in self.a.run("sh", "-c", f"{each} & wait").stdout
        assert not self.seen().intersection(addresses)

    def seen(self) -> set[str]:
        """Return the destinations of the packets that arrived beside the tunnel since the last call.

        It sends one last packet that way, recognisable by its size, and waits until the sniffer has printed it.
        """
        self._size += 1
        self.a.run("ping", "-n", "-c1", "-w5", f"-m{MARK}", f"-s{self._size}", self.b.four)
        self._watch.wait_for(f"to {self.b.four} {self._size + 28}\n")
        new, self._read = self._watch.log[self._read :], len(self._watch.log)
        return set(re.findall(r"to (\S+)", new))

    def way_to(self, address: str, mark: int = 0) -> str:
        return self.a.run("ip", "route", "get", address, "mark", str(mark)).stdout

    def rules(self) -> str:
        return self.a.run("sh", "-c", "ip rule; ip -6 rule").stdout

    def state(self) -> str:
        """Everything that a tunnel may change on the client's machine, except link-local addresses."""
        shown = self.a.run(
            "sh",
            "-c",
            "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -brief address; "
            "sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.all.src_valid_mark; "
            "find /run/vpntun -name '*.journal' -size +0; nft list tables 2>/dev/null",
        )
        return "\n".join(line for line in shown.stdout.splitlines() if "fe80" not in line and "ff00" not in line)

    def routes(self, table: str = "main") -> set[str]:
        """The destinations of the routes by the client's device."""
        shown = self.a.run(
            "sh", "-c", f"ip route show table {table} dev cli; ip -6 route show table {table} dev cli", check=False
        )
        return {line.split()[0] for line in shown.stdout.splitlines() if "fe80" not in line and "ff00" not in line}

    def _write(self, name: str, text: str) -> Path:
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        file.write_text(text)
        return file


def lend(machine: Machine, *addresses: str) -> None:
    """Add addresses for which a machine answers."""
    machine.run("sh", "-ec", "; ".join(f"ip address add {address} dev lo" for address in addresses))


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def test_a_full_tunnel_carries_everything_except_the_hosts_own_networks_and_leaves_no_trace(world: World) -> None:
    world.a.run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=1")  # the strictest setting
    before = world.state()
    client = world.up()
    world.through(WORLD, WORLD6, PRIVATE, PRIVATE6)
    world.beside("10.0.0.2", "fd01::2")
    assert client.stop() == 0
    assert world.state() == before
    world.beside(WORLD, WORLD6)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_tunnels_own_packets_go_beside_it_over_both_carriers_and_ip_versions(world: World, transport: str) -> None:
    world.up(transport=transport, endpoint=SERVER6)
    assert SERVER6 in world.seen()
    world.through(WORLD, WORLD6)


def inject(machine: Machine) -> None:
    """Add routes more specific than a default route, as a DHCP server or a router advertisement can."""
    ways = dict.fromkeys(("0.0.0.0/1", "128.0.0.0/1", "192.0.2.0/24", "10.9.0.0/25"), "10.0.0.2")
    ways |= dict.fromkeys(("2000::/3", "2001:db8::/64", "fd09::/65"), "fd01::2")
    machine.run("sh", "-ec", "; ".join(f"ip route add {route} via {router}" for route, router in ways.items()))


def test_case_26_a_more_specific_route_beside_a_full_tunnel_does_not_leak(world: World) -> None:
    client = world.up()
    world.through(WORLD, WORLD6)
    inject(world.a)
    world.through(WORLD, WORLD6, "10.9.0.1", "fd09::1")
    assert client.stop() == 0
    world.up()  # and once more, with the routes there before the tunnel
    world.through(WORLD, WORLD6, "10.9.0.1", "fd09::1")


def test_case_27_neither_a_local_network_of_public_addresses_nor_the_servers_own_is_exempt(world: World) -> None:
    world.a.run("ip", "address", "add", "192.0.2.99/24", "dev", "veth0")
    world.a.run("ip", "address", "add", "2001:db8::99/64", "dev", "veth0", "nodad")
    world.up()
    world.through(WORLD, WORLD6, SERVER6)
    # Only the tunnel's own packets go to the server's address beside the tunnel, not those of other processes.
    world.lab.ping(world.a, SERVER)
    assert "dev cli" in world.way_to(SERVER)
    assert "dev veth0" in world.way_to(SERVER, mark=MARK)


def test_case_27_a_local_network_cannot_claim_addresses_that_the_configuration_names(world: World) -> None:
    world.a.run("ip", "address", "add", "10.9.0.99/24", "dev", "veth0")
    world.a.run("ip", "address", "add", "172.20.0.99/16", "dev", "veth0")
    world.up(f"{FULL}, 172.20.0.0/24")
    world.through("10.9.0.1", PRIVATE)
    assert "dev veth0" in world.way_to("172.20.1.1")


@pytest.mark.parametrize(("device", "then"), [("made by vpntun", "down"), ("persistent", "up")])
def test_case_28_a_killed_full_tunnel_fails_closed_and_the_next_command_cleans_up(
    world: World, device: str, then: str
) -> None:
    if device == "persistent":
        world.a.run("ip", "tuntap", "add", "dev", "cli", "mode", "tun")
        world.before = world.state()
    client = world.up()
    rules = world.rules()
    client.kill()
    world.nowhere(WORLD, WORLD6)
    world.beside("10.0.0.2", "fd01::2")
    if then == "down":
        world.down()
    else:
        client = world.start(world.write())
        assert world.rules() == rules
        world.through(WORLD, WORLD6)
        assert client.stop() == 0
    assert world.state() == world.before
    world.beside(WORLD, WORLD6)


def test_split_routes_are_added_to_main_unless_they_exist_and_follow_a_reload(world: World) -> None:
    client = world.up("10.9.0.0/16, 10.9.0.1/32, 172.20.0.0/24, 172.16.0.0/13, fd20::/64")
    own = {"10.9.0.0/24", "fd09::/64"}  # this contains 10.9.0.1
    assert world.routes() == own | {"10.9.0.0/16", "172.20.0.0/24", "172.16.0.0/13", "fd20::/64"}
    assert str(MARK) not in world.rules()
    world.through(PRIVATE, PRIVATE6)
    world.beside(WORLD, WORLD6)
    world.write("172.20.0.0/25, 10.9.0.0/24, 192.168.7.0/24")
    reload(client)
    assert world.routes() == own | {"172.20.0.0/25", "192.168.7.0/24"}
    world.write("172.20.0.0/25, 0.0.0.0/0")
    reload(client, says="start it again")
    assert world.routes() == own | {"172.20.0.0/25", "192.168.7.0/24"}
    assert client.stop() == 0
    assert world.state() == world.before


def test_a_full_tunnel_becomes_a_split_one_and_a_full_one_again_by_a_reload(world: World) -> None:
    client = world.up()
    rules = world.rules()
    world.write("172.20.0.0/24, 10.9.0.0/24")
    reload(client)
    assert str(MARK) not in world.rules()
    world.through(PRIVATE)
    world.beside(WORLD6)
    world.write()
    reload(client)
    assert world.rules() == rules
    world.through(WORLD, WORLD6, "fd09::1")
    assert client.stop() == 0
    assert world.state() == world.before


def test_networks_that_together_cover_all_addresses_are_a_full_tunnel(world: World) -> None:
    client = world.up("0.0.0.0/1, 128.0.0.0/1, 172.20.0.0/24, ::/1, 8000::/1")
    inject(world.a)
    world.through(WORLD, WORLD6, PRIVATE, PRIVATE6)
    world.beside("10.0.0.2", "fd01::2")
    assert client.stop() == 0


@pytest.mark.parametrize(
    ("server", "allowed", "one_in_it"),
    [
        (SERVER, "10.9.0.0/24, 192.0.0.0/3, 198.51.100.1/32", WORLD),
        (SERVER6, "10.9.0.0/24, 2000::/3", WORLD6),
        ("10.77.0.1", "10.0.0.0/8", "10.78.0.1"),
    ],
)
def test_networks_that_cover_the_servers_address_do_not_swallow_the_tunnel(
    world: World, server: str, allowed: str, one_in_it: str
) -> None:
    lend(world.b, "10.77.0.1", "10.78.0.1")
    world.a.run("sysctl", "-q", "net.ipv4.conf.all.rp_filter=1")
    before = world.state()
    client = world.up(allowed, endpoint=server)
    world.through(one_in_it)
    assert "dev cli" in world.way_to(server)
    world.beside("10.0.0.2", "fd01::2", PRIVATE)
    assert client.stop() == 0
    assert world.state() == before


def test_longer_prefixes_still_win_beside_networks_that_cover_the_servers_address(world: World) -> None:
    world.a.run("ip", "route", "add", "192.0.2.0/24", "via", "10.0.0.2")
    world.a.run("ip", "route", "add", "172.0.0.0/8", "via", "10.0.0.2")
    client = world.up("10.9.0.0/24, 128.0.0.0/1, 172.20.0.0/24")
    world.beside(WORLD)
    world.through(PRIVATE)
    assert "dev veth0" in world.way_to("172.20.1.1")
    world.write("10.9.0.0/24, 128.0.0.0/1, 192.0.2.0/25, 192.0.2.1/32")
    reload(client)
    world.through(WORLD)
    world.write("172.20.0.0/24")
    reload(client)
    assert world.before.startswith(world.rules())
    assert client.stop() == 0


def test_routes_go_to_the_table_that_is_asked_for_or_to_none(world: World) -> None:
    client = world.up(FULL, "Table = 77", "FwMark = 0x4d")
    assert world.routes("77") == {"default"}
    assert world.before.startswith(world.rules())
    world.beside(WORLD)
    world.a.run("ip", "rule", "add", "not", "fwmark", "77", "table", "77")
    assert "dev cli" in world.way_to(SERVER)
    world.lab.ping(world.a, WORLD)  # the tunnel's own packets carry the configured mark
    world.a.run("ip", "rule", "del", "not", "fwmark", "77", "table", "77")
    assert client.stop() == 0
    client = world.up(FULL, "Table = off")
    assert world.routes() == {"10.9.0.0/24", "fd09::/64"}
    assert client.stop() == 0
    assert world.state() == world.before


def test_a_full_tunnel_uses_the_configured_mark_and_avoids_numbers_in_use(world: World) -> None:
    client = world.up(FULL, "FwMark = 4242")
    assert "fwmark 0x1092 lookup 4242" in world.rules()
    world.through(WORLD)
    assert client.stop() == 0
    world.a.run("ip", "route", "add", "203.0.113.0/24", "via", "10.0.0.2", "table", "51820")
    world.a.run("ip", "rule", "add", "from", "203.0.113.7", "table", "51821", "prio", "1000")
    client = world.up()
    assert "lookup 51822" in world.rules()
    world.lab.ping(world.a, WORLD6)
    assert client.stop() == 0


def test_rules_that_the_operator_added_are_not_duplicated_and_stay(world: World) -> None:
    world.a.run("sh", "-c", "ip rule add prio 32402 not fwmark 4242 table 4242")
    world.a.run("sh", "-c", "ip rule add prio 32401 to 10.0.0.0/24 table main suppress_prefixlength 23")
    before = world.state()
    client = world.up(FULL, "FwMark = 4242")
    assert (world.rules().count("32401:"), world.rules().count("32402:")) == (3, 2)
    assert client.stop() == 0
    assert world.state() == before


def test_the_hosts_own_networks_are_followed_as_its_addresses_change_without_roots_privileges_too(world: World) -> None:
    client = world.up(FULL, "User = nobody")
    world.b.run("ip", "address", "add", "192.168.7.2/24", "dev", "veth0")
    world.through("192.168.7.2")
    world.a.run("ip", "address", "add", "192.168.7.1/24", "dev", "veth0")
    assert until(lambda: "192.168.7.0/24" in world.rules(), 10)
    world.beside("192.168.7.2")
    world.a.run("ip", "address", "del", "192.168.7.1/24", "dev", "veth0")
    assert until(lambda: "192.168.7.0/24" not in world.rules(), 10)
    world.through("192.168.7.2")
    assert client.stop() == 0
    assert world.state() == world.before


def test_a_tunnel_that_cannot_start_leaves_nothing_and_does_not_harm_a_running_one(world: World) -> None:
    world.up()
    during = world.state()
    for name, allowed, line, status, says in (
        ("cli", FULL, "", 8, "cli"),
        ("more", FULL, "", 5, "another full tunnel"),
        ("more", "172.20.0.0/16, 10.0.0.0/24, 172.30.0.0/16", "", 3, "10.0.0.0/24"),
        ("more", "172.20.0.0/16, fd20::/64", "PostUp = exit 4", 10, "line 1 of PostUp"),
    ):
        file = world.write(allowed, line, name=name, address="10.8.0.2/24, fd08::2/64")
        second = world.a.vpntun("up", file)
        assert second.wait(SECONDS) == status, second.log
        assert says in second.log
        assert until(lambda: world.state() == during, SECONDS)
    world.through(WORLD)


def test_check_does_nothing(world: World) -> None:
    file = world.write(FULL, "DNS = 10.9.0.1", f"PreUp = touch {world.lab.folder}/ran")
    said = world.a.run(sys.executable, "-m", "vpntun", "check", file).stdout
    assert "full tunnel: IPv4 and IPv6" in said
    assert world.state() == world.before
    assert not (world.lab.folder / "ran").exists()
    assert world.a.run("ls", "-A", "/run/vpntun", "/var/lib/vpntun").stdout.split() == [
        "/run/vpntun:",
        "/var/lib/vpntun:",
    ]


def test_a_device_without_ipv6_does_not_leak_ipv6(world: World) -> None:
    client = world.up(FULL, "MTU = 1200", address="10.9.0.2/24")
    world.through(WORLD)
    world.nowhere(WORLD6)
    assert client.stop() == 0
    assert world.state() == world.before


def test_the_guides_full_tunnel_reaches_what_the_remote_machine_can_reach(lab: Lab) -> None:
    outside = lab.add("c", "10.0.1.3", "fd02::3")
    lab.cable(lab.b, "veth1", outside, "veth0")
    for machine, number in ((lab.b, 2), (outside, 3)):
        machine.run("ip", "address", "add", f"10.0.1.{number}/24", "dev", "veth0" if machine is outside else "veth1")
    lend(outside, "192.0.2.1")
    lab.a.run("ip", "route", "add", "default", "via", lab.b.four)
    lab.b.run("ip", "route", "add", "192.0.2.0/24", "via", "10.0.1.3")
    keys = {"REMOTE": KeyPair.generate(), "LOCAL": KeyPair.generate()}
    tunnels = []
    for machine, name in ((lab.b, "remote"), (lab.a, "local")):
        [text] = blocks(f"full-tunnel-{name}")
        for whose, pair in keys.items():
            text = text.replace(f"{whose}_PRIVATE", format_key(pair.private))
            text = text.replace(f"{whose}_PUBLIC", format_key(pair.public))
        for tool, usable in zip(("iptables", "ip6tables"), firewall(), strict=True):
            text = text.replace(f"= {tool} ", f"= {usable} ")
        file = lab.folder / name / "home.conf"
        file.parent.mkdir()
        file.touch(mode=0o600)
        file.write_text(text.replace("remote.example.org", lab.b.four))
        tunnels.append(machine.vpntun("up", file, binds=without_resolvconf(lab)))
        tunnels[-1].wait_for(STARTED, SECONDS)
    lab.ping(lab.a, "192.0.2.1", SECONDS)  # which has a route back only to the remote machine itself
    assert [each.stop() for each in reversed(tunnels)] == [0, 0]
    assert "MASQUERADE" not in lab.b.run(firewall()[0], "-t", "nat", "-S").stdout


DNS = "DNS = 10.9.0.1, fd09::1, corp.example, example.net"


def test_name_servers_and_domains_are_given_to_resolvconf_and_removed_even_after_a_kill(world: World) -> None:
    recorded = world.lab.folder / "recorded"
    program = world.lab.folder / "bin" / "resolvconf"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{recorded}\ntest "$1" != -a || cat >>{recorded}\n')
    program.chmod(0o755)
    env = {"PATH": f"{program.parent}:{os.environ['PATH']}"}
    entry = entry_for("cli")
    added = f"-a {entry} -m 0 -x\nnameserver 10.9.0.1\nnameserver fd09::1\nsearch corp.example example.net\n"
    for killed in (False, True):
        client = world.start(world.write(FULL, DNS), env)
        assert recorded.read_text() == added
        if killed:
            client.kill()
            world.down(env)
        else:
            assert client.stop() == 0
        assert recorded.read_text() == f"{added}-d {entry} -f\n"
        recorded.unlink()
    assert world.state() == world.before


def without_resolvconf(lab: Lab) -> dict[str, Path]:
    """Binds that hide every resolvconf of this machine behind a file that cannot be executed."""
    nothing = lab.folder / "nothing"
    nothing.touch(mode=0o600)
    found = [shutil.which("resolvconf", path=each) for each in f"{os.environ['PATH']}:{SYSTEM_PATH}".split(":")]
    return {each: nothing for each in found if each is not None}


def test_without_resolvconf_the_tunnel_is_up_and_logs_one_warning(world: World) -> None:
    client = world.a.vpntun("up", world.write(FULL, DNS), binds=without_resolvconf(world.lab))
    client.wait_for(STARTED, SECONDS)
    world.lab.ping(world.a, WORLD, SECONDS)
    assert client.stop() == 0
    assert client.log.count("resolvconf") == 1


def test_hook_lines_run_before_and_after_everything_that_is_set_up(world: World) -> None:
    recorded = world.lab.folder / "recorded"
    state = "$(ip -o link show %i 2>/dev/null | wc -l) $(ip rule | grep -c 32402:)"
    lines = [f"{when} = echo {when} %i {state} >>{recorded}" for when in ("PostDown", "PreDown", "PostUp", "PreUp")]
    client = world.up(FULL, *lines, "PostUp = ping -c1 -w20 10.9.0.1", f"PostUp = echo and again >>{recorded}")
    assert until(lambda: "again" in recorded.read_text(), SECONDS)
    assert client.stop() == 0
    said = ["PreUp cli 0 0", "PostUp cli 1 1", "and again", "PreDown cli 1 1", "PostDown cli 0 0"]
    assert recorded.read_text().splitlines() == said


def reload(client: Daemon, says: str = "read the configuration again") -> None:
    count = client.log.count(says)
    client.process.send_signal(signal.SIGHUP)
    client.wait_for(says, SECONDS, count=count + 1)
