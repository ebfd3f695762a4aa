"""Either end after a pause in which it did not run: a suspend, a stop. Traffic flows again at once."""

from __future__ import annotations

import pytest

from tests.core.simulation import World, connected
from vpntun.types import Transport

LENGTHS = [10.0, 100.0, 200.0, 1000.0, 50_000.0]
SOON = 1.0
"""Seconds within which a packet must have got through in each direction. The simulation sends one every 0.5 s."""


@pytest.mark.parametrize("seconds", LENGTHS)
@pytest.mark.parametrize("transport", ["auto", "udp", "tcp"])
def test_traffic_flows_at_once_after_a_pause_of_the_client(transport: Transport, seconds: float) -> None:
    world = connected(transport)
    world.pause(world.client, seconds)
    assert world.until_through(60) <= SOON


@pytest.mark.parametrize("seconds", LENGTHS)
def test_traffic_flows_at_once_after_a_pause_of_the_server_over_udp(seconds: float) -> None:
    world = connected("udp")
    world.pause(world.server, seconds)
    assert world.until_through(60) <= SOON


@pytest.mark.parametrize("seconds", LENGTHS)
def test_where_udp_is_blocked_the_client_dials_at_once_since_its_connection_may_be_dead(seconds: float) -> None:
    world = connected("auto", "udp")
    world.pause(world.client, seconds)
    began = world.now
    world.run(SOON)
    assert world.times("client", "dials", "tcp", since=began) == [began]
    assert world.until_through(60) <= SOON


def test_a_pause_during_the_search_does_not_make_its_pauses_longer() -> None:
    world = connected("udp")
    world.network.block("udp")
    world.pause(world.client, 50_000.0)
    world.run(8.0)  # the machine is awake before its network is there
    world.network.unblock("udp")
    assert world.until_through(60) < 6


def test_the_name_is_looked_up_at_once_so_that_a_moved_server_is_found() -> None:
    world = connected("udp")
    world.names = ["server-v4"]
    world.network.swallowed = {"server"}
    world.pause(world.client, 1000.0)
    assert world.until_through(60) < 7


def test_a_client_without_session_and_search_stays_idle() -> None:
    world = World("udp")
    world.pause(world.client, 1000.0)
    world.run(100)
    assert world.times("client", "asks", "udp") == []


def test_a_server_that_never_had_a_session_asks_nobody() -> None:
    world = World("udp", running=False)
    world.start_server()
    world.pause(world.server, 1000.0)
    world.run(100)
    assert world.notes == []
