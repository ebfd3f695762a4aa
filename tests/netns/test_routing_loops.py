"""A peer that sends from an address inside the tunnel cannot make this end send its own packets into the tunnel.

place.py describes the machines. The hostile one also has 10.66.1.1 and fd66::1 on its wire.
"""

from __future__ import annotations

import pytest

from tests.netns.lab import PORT, Daemon, Lab, Machine, far, start_pair, until
from tests.netns.place import INSIDE, INSIDE6, Place

A_LOOPS_PACKETS = 2000
"""Packets a second: a loop makes more, and everything else together makes fewer."""


def is_quiet(machine: Machine, device: str) -> bool:
    """Whether the kernel sends hardly any packets into a device for a second."""
    count = f"cat /sys/class/net/{device}/statistics/tx_packets"
    before, after = map(int, machine.run("sh", "-c", f"{count}; sleep 1; {count}").stdout.split())
    return after - before < A_LOOPS_PACKETS


def logged_route_inside(daemon: Daemon, address: str) -> None:
    daemon.wait_for(f"the route to {address} leads into the tunnel itself")


@pytest.mark.parametrize(
    ("later", "relay", "rp_filter"), [(INSIDE, "no", 0), (INSIDE, "yes", 2), (INSIDE6, "no", 2), (INSIDE6, "yes", 0)]
)
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
    logged_route_inside(hub, later)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.endpoint(place.hub, "hub", 1).startswith("[fd02::3]" if later == INSIDE6 else "10.0.1.3")
    place.lab.ping(place.a, "10.9.0.1", within=1)
    assert place.endpoint(place.hub, "hub", 0) == before


@pytest.mark.parametrize("rule", [f"ipproto udp sport {PORT}", "from 10.0.1.2"])
def test_an_endpoint_inside_is_accepted_if_a_rule_keeps_the_tunnels_own_packets_out(place: Place, rule: str) -> None:
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
    logged_route_inside(hub, INSIDE)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.endpoint(place.hub, "hub", 1).startswith("10.0.1.3")


@pytest.mark.parametrize("carrier", ["udp", "tcp"])
def test_own_packets_are_dropped_once_the_route_to_an_endpoint_leads_inside(place: Place, carrier: str) -> None:
    place.hub.run("ip", "route", "add", "10.66.0.0/16", "via", "10.0.1.3")
    hub = place.start_hub("Table = off")
    hostile = place.hostile_caller(carrier=carrier)
    place.send(hostile)
    assert until(lambda: place.endpoint(place.hub, "hub", 1).startswith(INSIDE), 5), place.lab.logs()
    assert place.dropped() == 0
    route_inside(place)
    place.lab.no_ping(place.hub, "10.9.0.3")
    logged_route_inside(hub, INSIDE)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.dropped() > 0


def test_own_packets_over_ipv6_are_dropped_once_the_route_leads_inside(place: Place) -> None:
    place.hub.run("ip", "route", "add", "fd66::/64", "via", "fd02::3")
    hub = place.start_hub("Table = off")
    hostile = place.hostile_caller(later=INSIDE6)
    place.send(hostile)
    assert until(lambda: place.endpoint(place.hub, "hub", 1).startswith(f"[{INSIDE6}]"), 5), place.lab.logs()
    route_inside(place, INSIDE6)
    place.lab.no_ping(place.hub, "10.9.0.3")
    logged_route_inside(hub, INSIDE6)
    assert is_quiet(place.hub, "hub"), place.lab.logs()
    assert place.dropped() > 0


def test_a_client_does_not_follow_its_server_inside(place: Place) -> None:
    server = place.hostile_server(INSIDE)
    client = place.start_a("10.9.0.0/24, 10.66.0.0/16")
    server.wait_for("session")
    place.send(server)
    logged_route_inside(client, INSIDE)
    assert is_quiet(place.a, "a"), place.lab.logs()
    assert place.endpoint(place.a, "a", 0).startswith("10.0.0.2")


def test_a_client_calls_no_server_whose_route_leads_inside_until_another_route_exists(place: Place) -> None:
    place.hub.run("ip", "addr", "add", "10.66.0.9/32", "dev", "lo")
    place.a.run("ip", "route", "add", "default", "via", "10.0.0.2")
    place.start_hub()
    client = place.start_a("10.9.0.0/24, 10.66.0.0/16", endpoint="10.66.0.9")
    logged_route_inside(client, "10.66.0.9")
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


def test_a_server_whose_peer_may_have_every_address_follows_it(lab: Lab) -> None:
    server, _ = start_pair(lab)
    lab.ping(lab.a, far(lab))
    lab.a.run("sh", "-ec", "ip addr del 10.0.0.1/24 dev veth0; ip addr add 10.0.0.9/24 dev veth0")
    lab.ping(lab.a, far(lab))
    server.wait_for("is at 10.0.0.9:")
