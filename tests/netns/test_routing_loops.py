"""A peer that sends from an address inside the tunnel does not make this end send to itself.

    a  10.0.0.1 ==veth0== 10.0.0.2  b, the hub  10.0.1.2, fd02::2 ==veth1== 10.0.1.3, fd02::3  c, hostile

In the tunnel the hub is 10.9.0.1 and fd09::1, a is 2 and c is 3. c may have 10.66.0.0/16 and fd66::/64 there too, and
it has 10.66.1.1 and fd66::1 on its wire as well.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.host.ends import ipv4
from tests.netns.lab import PORT, STARTED, Daemon, Lab, Machine, far, start_pair, until
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.wire.checksum import ones_sum

INSIDE, INSIDE6 = "10.66.1.1", "fd66::1"
A_LOOPS_PACKETS = 2000
"""Fewer packets in a second than a loop makes, and more than all the rest does."""


def question(source: str, destination: str) -> bytes:
    """A ping."""
    packet = bytearray(ipv4(source, destination, bytes((8, 0, 0xF7, 0xFF, 0, 0, 0, 0))))
    packet[9] = 1
    packet[10:12] = (ones_sum(bytes(packet[:20])) ^ 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


class Place:
    """The hub and its peers; nobody is up yet."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.a, self.hub = lab, lab.a, lab.b
        self.c = lab.add("c", "10.0.1.3", "fd02::3")
        lab.cable(self.hub, "veth1", self.c, "veth0")
        self.hub.run("sh", "-ec", "ip addr add 10.0.1.2/24 dev veth1; ip addr add fd02::2/64 dev veth1 nodad")
        lend = [f"ip addr add {each} dev veth0" for each in ("10.0.1.3/24", f"{INSIDE}/32")]
        lend += [f"ip addr add {each} dev veth0 nodad" for each in ("fd02::3/64", f"{INSIDE6}/128")]
        self.c.run("sh", "-ec", "; ".join(lend))
        self.keys = {name: KeyPair.generate() for name in ("hub", "a", "c")}
        self.go = lab.folder / "go"

    def up(self, machine: Machine, name: str, interface: str, *peers: str) -> Daemon:
        """The program with this file."""
        file = self.lab.folder / f"{name}.conf"
        file.touch(mode=0o600)
        own = f"[Interface]\nPrivateKey = {format_key(self.keys[name].private)}\n{interface}\n"
        file.write_text(own + "".join(f"[Peer]\n{peer}\n" for peer in peers))
        daemon = machine.vpntun("up", file, "-v")
        daemon.wait_for(STARTED)
        return daemon

    def start_hub(self, *lines: str) -> Daemon:
        interface = "\n".join(("Address = 10.9.0.1/24, fd09::1/64", f"ListenPort = {PORT}", "Transport = auto", *lines))
        networks = {"a": "10.9.0.2, fd09::2", "c": "10.9.0.3, fd09::3, 10.66.0.0/16, fd66::/64"}
        peers = [
            f"PublicKey = {format_key(self.keys[name].public)}\nAllowedIPs = {allowed}"
            for name, allowed in networks.items()
        ]
        return self.up(self.hub, "hub", interface, *peers)

    def start_a(self, allowed: str = "10.9.0.0/24, fd09::/64", endpoint: str = "10.0.0.2") -> Daemon:
        public = format_key(self.keys["hub"].public)
        peer = f"PublicKey = {public}\nEndpoint = {endpoint}:{PORT}\nAllowedIPs = {allowed}"
        return self.up(self.a, "a", "Address = 10.9.0.2/24, fd09::2/64", peer)

    def hostile_caller(self, *, later: str = INSIDE, carrier: str = "udp") -> Daemon:
        """c, which calls the hub from its own address, and has a session."""
        own, there = ("fd02::3", "fd02::2") if ":" in later else ("10.0.1.3", "10.0.1.2")
        packet = question("10.9.0.3", "10.9.0.1")
        caller = self._hostile(
            self.c, "c", "hub", role="caller", own=own, at=there, later=later, carrier=carrier, packet=packet
        )
        caller.wait_for("session")
        return caller

    def hostile_server(self, later: str) -> Daemon:
        """In place of the hub; it waits for a to call."""
        self.hub.run("ip", "addr", "add", f"{later}/32", "dev", "veth0")
        packet = question("10.9.0.1", "10.9.0.2")
        return self._hostile(self.hub, "hub", "a", role="server", at="10.0.0.2", later=later, packet=packet)

    def _hostile(self, machine: Machine, who: str, other: str, packet: bytes, **wanted: str) -> Daemon:
        wanted |= {"private": self.keys[who].private.hex(), "public": self.keys[other].public.hex()}
        wanted |= {"go": str(self.go), "packet": packet.hex()}
        return machine.popen(sys.executable, "-m", "tests.netns.hostile", json.dumps(wanted))

    def send(self, hostile: Daemon) -> None:
        self.go.touch()
        hostile.wait_for("sent")

    def status(self, machine: Machine, name: str) -> Any:
        return json.loads(machine.run(sys.executable, "-m", "vpntun", "show", name, "--json").stdout)

    def endpoint(self, machine: Machine, name: str, number: int) -> str:
        return str(self.status(machine, name)["peers"][number]["endpoint"])

    def dropped(self) -> int:
        return int(self.status(self.hub, "hub")["drops"].get("routing loop", 0))


def is_quiet(machine: Machine, device: str) -> bool:
    """Whether the kernel sends next to nothing into a device for a second."""
    count = f"cat /sys/class/net/{device}/statistics/tx_packets"
    before, after = map(int, machine.run("sh", "-c", f"{count}; sleep 1; {count}").stdout.split())
    return after - before < A_LOOPS_PACKETS


def said_so(daemon: Daemon, address: str) -> None:
    daemon.wait_for(f"the route to {address} leads into the tunnel itself")


@pytest.fixture
def place(lab: Lab) -> Place:
    return Place(lab)


@pytest.mark.parametrize("later", [INSIDE, INSIDE6])
@pytest.mark.parametrize(("relay", "rp_filter"), [("no", 0), ("yes", 0), ("no", 2), ("yes", 2)])
def test_data_from_inside_the_tunnel_does_not_move_the_endpoint_there(
    place: Place, later: str, relay: str, rp_filter: int
) -> None:
    place.hub.run("sysctl", "-qw", f"net.ipv4.conf.all.rp_filter={rp_filter}")
    hub = place.start_hub(f"Relay = {relay}")
    place.start_a()
    place.lab.ping(place.a, "10.9.0.1")
    before = place.endpoint(place.hub, "hub", 0)
    hostile = place.hostile_caller(later=later)
    place.send(hostile)
    said_so(hub, later)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.endpoint(place.hub, "hub", 1).startswith("[fd02::3]" if later == INSIDE6 else "10.0.1.3")
    place.lab.ping(place.a, "10.9.0.1", within=1)
    assert place.endpoint(place.hub, "hub", 0) == before


@pytest.mark.parametrize("rule", [f"ipproto udp sport {PORT}", "from 10.0.1.2"])
def test_a_rule_for_the_tunnels_own_packets_keeps_them_out_and_so_the_peer_may_be_there(
    place: Place, rule: str
) -> None:
    place.hub.run("sh", "-ec", f"ip route add 10.66.0.0/16 via 10.0.1.3 table 100; ip rule add {rule} lookup 100")
    hub = place.start_hub()
    hostile = place.hostile_caller()
    place.send(hostile)
    hub.wait_for(f"is at {INSIDE}:")
    assert is_quiet(place.hub, "hub"), place.lab.logs()


def route_inside(place: Place, address: str = INSIDE) -> None:
    place.hub.run("ip", "route", "replace", address, "dev", "hub")


def test_a_tcp_connection_whose_route_leads_inside_is_not_the_endpoint(place: Place) -> None:
    place.hub.run("ip", "route", "add", "10.66.0.0/16", "via", "10.0.1.3")
    hub = place.start_hub("Table = off")
    hostile = place.hostile_caller(carrier="tcp")
    route_inside(place)
    place.send(hostile)
    said_so(hub, INSIDE)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.endpoint(place.hub, "hub", 1).startswith("10.0.1.3")


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_own_packets_are_dropped_when_the_route_to_an_endpoint_begins_to_lead_inside(
    place: Place, carrier: str
) -> None:
    place.hub.run("ip", "route", "add", "10.66.0.0/16", "via", "10.0.1.3")
    hub = place.start_hub("Table = off")
    hostile = place.hostile_caller(carrier=carrier)
    place.send(hostile)
    assert until(lambda: place.endpoint(place.hub, "hub", 1).startswith(INSIDE), 5), place.lab.logs()
    assert place.dropped() == 0
    route_inside(place)
    place.lab.no_ping(place.hub, "10.9.0.3")
    said_so(hub, INSIDE)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.dropped() > 0


def test_own_packets_over_ipv6_are_dropped_when_the_route_begins_to_lead_inside(place: Place) -> None:
    place.hub.run("ip", "route", "add", "fd66::/64", "via", "fd02::3")
    hub = place.start_hub("Table = off")
    hostile = place.hostile_caller(later=INSIDE6)
    place.send(hostile)
    assert until(lambda: place.endpoint(place.hub, "hub", 1).startswith(f"[{INSIDE6}]"), 5), place.lab.logs()
    route_inside(place, INSIDE6)
    place.lab.no_ping(place.hub, "10.9.0.3")
    said_so(hub, INSIDE6)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.dropped() > 0


def test_a_client_does_not_follow_its_server_inside(place: Place) -> None:
    server = place.hostile_server(INSIDE)
    client = place.start_a("10.9.0.0/24, 10.66.0.0/16")
    server.wait_for("session")
    place.send(server)
    said_so(client, INSIDE)
    assert is_quiet(place.a, "a"), place.lab.logs()
    assert place.endpoint(place.a, "a", 0).startswith("10.0.0.2")


def test_a_client_does_not_call_inside_until_a_route_leads_to_its_server(place: Place) -> None:
    place.hub.run("ip", "addr", "add", "10.66.0.9/32", "dev", "lo")
    place.a.run("ip", "route", "add", "default", "via", "10.0.0.2")
    place.start_hub()
    client = place.start_a("10.9.0.0/24, 10.66.0.0/16", endpoint="10.66.0.9")
    said_so(client, "10.66.0.9")
    assert is_quiet(place.a, "a"), place.lab.logs()
    place.a.run("ip", "route", "add", "10.66.0.9", "via", "10.0.0.2")
    place.lab.ping(place.a, "10.9.0.1", within=10)


def test_a_client_with_a_full_tunnel_follows_its_server_beside_it(place: Place) -> None:
    place.a.run("ip", "route", "add", "default", "via", "10.0.0.2")
    server = place.hostile_server("198.51.100.7")
    client = place.start_a("0.0.0.0/0, ::/0")
    server.wait_for("session")
    place.send(server)
    client.wait_for("is at 198.51.100.7:")
    assert is_quiet(place.a, "a"), place.lab.logs()


def test_a_server_that_lets_its_peer_have_every_address_follows_it(lab: Lab) -> None:
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("sh", "-ec", "ip addr del 10.0.0.1/24 dev veth0; ip addr add 10.0.0.9/24 dev veth0")
    lab.ping(lab.a, far(lab))
    server.wait_for("is at 10.0.0.9:")
