"""Either end after its packets have taken another route or source address: its peer follows at once."""

from __future__ import annotations

import pytest

from tests.core.fakes import Address
from tests.core.simulation import World, connected
from vpntun.types import CarrierName, Transport

SOON = 1.0
"""Seconds within which a packet must have got through in each direction. The simulation sends one every 0.5 s."""


def reroute(world: World, *, lost: bool = False) -> None:
    """Tell the client that its packets take another route."""
    world.client.act(world.client.selector.rerouted(world.now, lost=lost))


def test_a_server_with_packets_for_a_client_that_has_none_follows_it_at_once() -> None:
    world = connected("udp")
    world.move_client("elsewhere")
    reroute(world)
    world.run(0.1)
    received = len(world.client.received)
    world.server.send(b"a packet for the client")
    world.run(0.1)
    assert len(world.client.received) == received + 1
    assert world.times("client", "asks", "udp") == world.times("client", "asks", "udp")[:1], "the session continues"


def test_a_client_that_searches_asks_at_once_though_the_pauses_have_become_long() -> None:
    world = connected("udp")
    world.network.block("udp")
    world.run(600)
    world.network.unblock("udp")
    reroute(world)
    assert world.until_through(60) <= SOON


def test_a_route_that_changes_again_and_again_delays_neither_fresh_ports_nor_the_end_of_waiting() -> None:
    world = connected("udp")
    world.network.block("udp")
    for _ in range(15):
        world.run(8)
        reroute(world)
    assert world.client.gave_up, "what waits for over 90 s is dropped"
    assert world.times("client", "renews port", "udp")


def test_a_client_whose_connection_has_lost_its_address_dials_at_once() -> None:
    world = connected("tcp")
    (dialled,) = world.times("client", "dials", "tcp")
    world.network.connections[0].carry = lambda message: None  # type: ignore[method-assign]
    reroute(world, lost=True)
    assert world.until_through(60) <= SOON
    assert world.times("client", "dials", "tcp", since=dialled + 0.1) == [world.times("client", "hangs up", "tcp")[0]]


def test_a_connection_by_another_route_is_kept_until_a_new_one_answers() -> None:
    world = connected("tcp")
    kept = world.client.peer.endpoint
    world.network.block("tcp")
    reroute(world)
    world.run(5)
    assert world.client.peer.endpoint == kept
    world.network.unblock("tcp")
    assert world.until_through(60) <= 12
    world.run(5)
    assert sum(each.open for each in world.network.connections) == 2


def silence(world: World) -> None:
    """Have nothing of what either end sends over a connection arrive, as after the loss of its address."""
    for each in world.network.connections:
        each.carry = lambda message: None  # type: ignore[method-assign]


@pytest.mark.parametrize("pause", [5.0, 16.0, 200.0])
@pytest.mark.parametrize("blocked", [(), ("udp",)])
def test_a_dial_that_hangs_does_not_delay_the_one_from_the_new_address(
    blocked: tuple[CarrierName, ...], pause: float
) -> None:
    world = connected("auto" if blocked else "tcp", *blocked)
    world.network.block("tcp")
    reroute(world, lost=True)
    world.run(pause)
    world.network.unblock("tcp")
    reroute(world)
    assert world.until_through(60) <= SOON


def test_a_dial_that_hangs_when_the_address_is_lost_is_given_up() -> None:
    world = connected("tcp")
    world.network.block("tcp")
    reroute(world)
    world.run(5)
    world.network.unblock("tcp")
    silence(world)
    reroute(world, lost=True)
    assert world.until_through(60) <= SOON


def test_routes_that_change_again_and_again_leave_one_dial_under_way() -> None:
    world = connected("tcp")
    world.network.block("tcp")
    for _ in range(8):
        reroute(world, lost=True)
        world.run(0.25)
    world.network.unblock("tcp")
    reroute(world)
    assert world.until_through(60) <= SOON
    world.run(20)
    assert sum(each.open for each in world.network.connections) == 2


def test_tcp_is_dialled_at_once_where_it_worked_last_though_its_connection_was_lost_long_ago() -> None:
    world = connected("auto", "udp")
    world.network.without_way.add("server")
    silence(world)
    reroute(world, lost=True)
    world.run(60)
    world.network.without_way.clear()
    began = world.now
    reroute(world)
    world.run(SOON)
    assert world.times("client", "dials", "tcp", since=began)[0] == began
    assert world.until_through(60) <= SOON


def test_a_client_follows_a_server_whose_address_changes_at_once() -> None:
    world = connected("udp")
    world.network.hosts["elsewhere"] = world.network.hosts.pop("server")
    server = world.server
    server.address = "elsewhere"
    server.peer.endpoint = Address("client")  # which has been called from an address that is gone
    server.act(server.selector.rerouted(world.now, lost=True))
    assert world.until_through(60) <= SOON


def test_a_server_that_asks_asks_again_at_once() -> None:
    world = connected("udp")
    world.network.block("udp")
    world.run(200)
    asked = world.now
    world.server.act(world.server.selector.want(asked))
    world.run(1)
    world.server.act(world.server.selector.rerouted(world.now, lost=False))
    assert world.times("server", "asks", "udp", since=asked) == [asked, asked + 1]


def test_a_server_gives_up_a_connection_that_has_lost_its_address() -> None:
    world = connected("tcp")
    world.server.act(world.server.selector.rerouted(world.now, lost=True))
    assert world.server.peer.endpoint is None
    assert world.until_through(60) <= 4


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_end_that_never_had_a_session_has_nobody_to_tell(transport: Transport) -> None:
    world = World(transport, running=False)
    world.start_server()
    world.server.act(world.server.selector.rerouted(world.now, lost=True))
    world.run(1)
    assert world.notes == []
