"""A path that is lost one way only: what still comes the other way proves nothing about what is sent."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.fakes import Connection
from tests.core.simulation import End, World, connected
from vpntun.types import Transport

PROMISED = 25.0
"""Seconds within which traffic flows again."""


def connection_of(world: World, name: str) -> Connection:
    (connection,) = [each for each in world.network.connections if each.open and each.owner is end_of(world, name)]
    return connection


def end_of(world: World, name: str) -> End:
    return world.client if name == "client" else world.server


def until(world: World, condition: Callable[[], object], limit: float, *, says: End | None = None) -> float:
    """Let time pass until the condition holds, a packet of `says` leaving every half second; return how long."""
    began = world.now
    while not condition():
        assert world.now - began < limit
        if says is not None:
            says.send(b"stream")
        world.run(0.5)
    return world.now - began


@pytest.mark.parametrize("deaf", ["client", "server"])
def test_traffic_over_udp_that_is_lost_one_way_moves_to_tcp(deaf: str) -> None:
    world = connected()
    world.network.deaf.add(deaf)
    assert world.until_through(60) < PROMISED
    assert world.client.carrier == world.server.carrier == "tcp"


def test_a_stream_to_a_client_that_says_nothing_moves_to_tcp() -> None:
    """The server alone knows that nothing is reported, and the client alone can dial."""
    world = connected()
    until(world, lambda: world.now > 1010, 20, says=world.server)
    world.network.deaf.add("client")
    assert until(world, lambda: world.client.carrier == "tcp", 60, says=world.server) < PROMISED


def test_an_idle_client_notices_by_its_keepalive() -> None:
    world = connected()
    world.run(60)
    world.network.deaf.add("client")
    assert until(world, lambda: world.client.carrier == "tcp", 60) < 25 + 15 + 3


def test_the_reason_for_tcp_counts_the_seconds_in_which_nothing_arrived_over_udp() -> None:
    world = connected()
    world.run(60)
    world.network.deaf.add("client")
    until(world, lambda: world.client.carrier == "tcp", 60)
    text, since = world.client.selector.reason
    assert text == "no UDP answer"
    assert since is not None
    assert world.now - since >= 15


def test_an_idle_client_whose_new_route_leads_nowhere_notices_at_once() -> None:
    world = connected()
    world.run(10)
    world.network.deaf.add("server")
    world.client.act(world.client.selector.rerouted(world.now, lost=False))
    assert until(world, lambda: world.client.carrier == "tcp", 60) < 15 + 3


@pytest.mark.parametrize("name", ["client", "server"])
def test_a_connection_that_forwards_nothing_one_way_is_replaced(name: str) -> None:
    world = connected("auto", "udp")
    connection_of(world, name).swallows = True
    assert world.until_through(60) < PROMISED


@pytest.mark.parametrize("deaf", ["client", "server"])
def test_the_end_whose_data_vanishes_says_so_until_some_arrives_again(deaf: str) -> None:
    world = connected("auto", "tcp")
    end, other = (world.client, world.server) if deaf == "server" else (world.server, world.client)
    world.network.deaf.add(deaf)
    until(world, lambda: end.records.nothing_arrives, 20, says=end)
    assert not other.records.nothing_arrives
    world.network.deaf.clear()
    until(world, lambda: not end.records.nothing_arrives, 20)


def test_a_plain_wireguard_is_judged_by_what_comes_as_wireguard_does() -> None:
    world = connected("auto", "tcp", plain=True)
    asked = len(world.times("client", "asks", "udp"))
    world.network.deaf.add("server")
    for _ in range(60):
        world.client.send(b"out")
        world.server.send(b"in")
        world.run(1)
    assert len(world.times("client", "asks", "udp")) == asked


# No false alarms


def asked_meanwhile(world: World, does: Callable[[], object]) -> int:
    """How often either end asks for a handshake before the session is due for renewal, without those of renewals."""
    began = world.now
    does()
    assert world.now - began < 110
    return sum(len(world.times(name, "asks", "udp", since=began)) for name in ("client", "server"))


def searches_meanwhile(world: World, does: Callable[[], object]) -> int:
    """How often either end has a reason to search, without those of renewals."""
    began = world.now
    does()
    assert world.now - began < 110
    return sum(len(world.times(name, "wants", "udp", since=began)) for name in ("client", "server"))


def sparse(world: World, every: float, seconds: float = 100.0) -> Callable[[], None]:
    """A packet of the client now and then, and none of the server."""

    def send() -> None:
        for _ in range(int(seconds / every)):
            world.client.send(b"sparse")
            world.run(every)

    return send


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("every", [0.3, 7.0, 50.0])
def test_a_path_that_loses_a_third_of_all_datagrams_is_no_reason_to_search(every: float, seed: int) -> None:
    world = World(seed=seed)
    world.start()
    world.until_through(5)
    world.network.udp.loss = 0.3
    assert searches_meanwhile(world, sparse(world, every)) <= 1  # for lack of a HELLO in a new session
    assert len(world.times("client", "asks", "udp")) <= 1 + 7  # the client asks when all PROBEs of 2 s are lost


@pytest.mark.parametrize("every", [0.3, 7.0, 50.0])
def test_a_queue_of_seconds_is_no_reason_to_search(every: float) -> None:
    world = connected()
    world.network.udp.latency = 4.0
    assert searches_meanwhile(world, sparse(world, every)) <= 1  # the HELLO of the new session takes 8 s
    assert len(world.times("client", "asks", "udp")) <= 1 + 2  # by then a handshake has shown how slow the path is


def test_a_lost_report_is_no_reason_to_search() -> None:
    world = connected()
    world.run(30)
    world.network.deaf.add("client")
    world.client.send(b"one")
    world.run(1)
    world.network.deaf.clear()
    assert asked_meanwhile(world, lambda: world.run(60)) == 0


def test_a_client_that_roams_keeps_its_session() -> None:
    world = connected()
    world.move_client("elsewhere")
    assert asked_meanwhile(world, sparse(world, 2.0)) == 0


@pytest.mark.parametrize("blocked", ["tcp", "udp"])
def test_an_idle_link_sends_a_keepalive_a_probe_and_its_echo_every_25_seconds(blocked: str) -> None:
    world = connected("auto", blocked)
    world.run(20)
    before = messages(world)
    assert asked_meanwhile(world, lambda: world.run(90)) == 0
    assert messages(world) - before <= 3 * 4


def messages(world: World) -> int:
    """The number of data messages that both ends have sent in the session."""
    return sum(end.peer.keys.current.send_counter for end in (world.client, world.server) if end.peer.keys.current)


def test_a_restart_of_the_server_costs_no_more_than_its_handshake() -> None:
    world = connected("auto", "tcp")
    world.restart_server()
    assert world.until_through(5) < 2
    assert asked_meanwhile(world, sparse(world, 2.0)) == 0


@pytest.mark.parametrize("transport", ["udp", "auto"])
def test_a_server_that_has_lost_its_sessions_and_every_memory_of_its_client_is_asked_after_five_seconds(
    transport: Transport,
) -> None:
    world = connected(transport)
    world.talk(10)
    world.stop_server()
    world.remembered = None
    world.start_server()
    assert world.until_through(10) <= 6
    assert world.times("client", "dials", "tcp") == []


def test_a_client_that_only_receives_asks_a_server_that_has_lost_its_sessions_after_seven_seconds() -> None:
    world = connected("udp")
    until(world, lambda: world.now > 1010, 20, says=world.server)
    world.stop_server()
    world.remembered = None
    world.start_server()
    assert until(world, lambda: world.server.peer.endpoint, 20) <= 8
