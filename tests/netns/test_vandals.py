"""Attacks by strangers and peers neither end a daemon nor disturb other peers.

Each attack of vandal.py once did. The hub is attacked over IPv4 and IPv6, and a client at its own port.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.lab import PORT, Daemon
from tests.netns.place import Place
from tests.netns.test_steadiness import cpu_seconds
from tests.netns.vandal import AS_PEER, AS_STRANGER

LARGEST_SHARE = 0.25
"""Largest share of a processor that an attack of a few hundred kbit/s may use."""


def pings_answered(place: Place, count: int = 20) -> int:
    """Count the pings, ten a second, that the hub answers a through the tunnel."""
    shown = place.a.run("ping", "-n", "-q", f"-c{count}", "-i0.1", "-W1", "10.9.0.1", check=False).stdout
    found = re.search(r"(\d+) received", shown)
    return int(found[1]) if found else 0


@contextmanager
def at_little_cost(daemon: Daemon) -> Iterator[None]:
    """Assert that the daemon survives the body and uses little processor time meanwhile."""
    before, began = cpu_seconds(daemon), time.monotonic()
    yield
    assert daemon.running
    assert cpu_seconds(daemon) - before < LARGEST_SHARE * (time.monotonic() - began)


@pytest.mark.parametrize("what", [*AS_STRANGER, *AS_PEER])
def test_a_hub_under_attack_serves_its_peers(place: Place, what: str) -> None:
    hub, a = place.start_hub(), place.start_a()
    a.wait_for("connected")
    vandal = place.vandal(what, "10.0.1.2", index=place.index_of_messages_to(PORT))
    with at_little_cost(hub):
        assert pings_answered(place) == 20
        assert vandal.wait() == 0, str(vandal)
    assert pings_answered(place, 3) == 3


def test_bundles_of_tiny_packets_cost_little_over_tcp_too(place: Place) -> None:
    hub, a = place.start_hub(), place.start_a()
    a.wait_for("connected")
    with at_little_cost(hub):
        vandal = place.vandal("bundles of tiny packets", "fd02::2", carrier="tcp")
        assert pings_answered(place) == 20
        assert vandal.wait() == 0, str(vandal)
    assert place.hub.status("hub")["peers"][1]["drops"]["bad bundle"] > 10


@pytest.mark.parametrize("what", AS_PEER)
def test_a_client_whose_hub_is_hostile_survives_at_little_cost(place: Place, what: str) -> None:
    vandal = place.vandal_as_hub(what)
    client = place.start_a()
    vandal.wait_for("at it")
    with at_little_cost(client):
        assert vandal.wait() == 0, str(vandal)


@pytest.mark.parametrize("what", AS_STRANGER)
def test_a_hub_under_attack_over_ipv6_serves_its_peers(place: Place, what: str) -> None:
    hub, a = place.start_hub(), place.start_a(endpoint="[fd01::2]")
    a.wait_for("connected")
    vandal = place.vandal(what, "fd02::2", index=place.index_of_messages_to(PORT))
    assert pings_answered(place) == 20
    assert vandal.wait() == 0, str(vandal)
    assert hub.running


@pytest.mark.parametrize("what", AS_STRANGER)
def test_a_client_under_attack_keeps_its_link(place: Place, what: str) -> None:
    """The stranger knows the port from which the client calls."""
    place.start_hub()
    client = place.start_a()
    client.wait_for("connected")
    port = int(place.endpoint(place.hub, "hub", 0).rpartition(":")[2])
    place.hub.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    place.c.run("ip", "route", "add", "10.0.0.0/24", "via", "10.0.1.2")
    place.a.run("ip", "route", "add", "10.0.1.0/24", "via", "10.0.0.2")
    vandal = place.vandal(what, "10.0.0.1", port, index=place.index_of_messages_to(port))
    assert pings_answered(place) == 20
    assert vandal.wait() == 0, str(vandal)
    assert client.running


@pytest.mark.parametrize("what", AS_STRANGER)
def test_a_client_that_starts_during_an_attack_connects_soon(place: Place, what: str) -> None:
    place.start_hub()
    vandal = place.vandal(what, "10.0.1.2", seconds=5)
    client = place.start_a()
    client.wait_for("connected", 4)
    assert vandal.running
