"""Fresh ports of a client that gets no answer over UDP: a router may have spoilt the one in use."""

from __future__ import annotations

from itertools import pairwise

from tests.core.simulation import World, connected
from vpntun.core.selection.ports import Ports


def spoil(world: World) -> None:
    """Let a router lose all packets from and to the client's present port, as if it had once forgotten to translate."""
    world.network.swallowed.add(world.client.address)


def test_a_spoilt_port_is_replaced_by_a_fresh_one() -> None:
    world = connected("udp")
    spoil(world)
    assert world.until_through(60) < 45
    assert len(world.times("client", "renews port", "udp")) == 1


def test_a_spoilt_port_at_the_first_connection_is_replaced_too() -> None:
    world = World("udp")
    spoil(world)
    world.start()
    assert world.until_through(60) < 25


def test_a_port_that_is_spoilt_while_the_outage_lasts_is_replaced_by_the_next() -> None:
    world = connected("udp")
    spoil(world)
    while len(world.times("client", "renews port", "udp")) < 3:
        world.run(0.5)
        spoil(world)
    world.client.renew_port()
    assert world.until_through(100) < 100


def test_where_fresh_ports_do_not_work_the_port_that_worked_last_is_tried_in_turn() -> None:
    world = connected("udp")
    worked = world.client.address
    world.network.block("udp")
    world.run(100)
    world.network.unblock("udp")
    world.network.swallowed |= {name for name in world.network.hosts if "port" in name}
    assert world.client.address != worked
    assert world.until_through(80) < 80
    assert world.client.peer.endpoint is not None


def test_an_answer_in_time_keeps_the_port() -> None:
    world = connected("udp")
    for _ in range(3):
        world.network.block("udp")
        world.run(8)
        world.network.unblock("udp")
        world.until_through(20)
    assert world.times("client", "renews port", "udp") == []


def test_in_a_long_outage_ports_are_renewed_ever_more_rarely_down_to_every_two_minutes() -> None:
    world = connected("udp")
    world.network.block("udp")
    world.run(6 * 3600)
    renewed = world.times("client", "renews port", "udp")
    pauses = [later - earlier for earlier, later in pairwise(renewed)]
    assert min(pauses) > 10
    assert min(pauses[8:]) >= 120
    assert len(renewed) < 6 * 3600 / 120 + 8


def test_on_tcp_each_trial_of_udp_has_a_fresh_port() -> None:
    world = connected("auto")
    spoil(world)
    world.until_through(60)
    assert world.client.carrier == "tcp"
    world.network.swallowed.add(world.client.address)
    before = world.now
    world.run(200)
    assert len(world.times("client", "moved", "udp", since=before)) == 1


def test_where_no_fresh_port_can_be_had_every_round_comes_from_the_one_port() -> None:
    ports = Ports()
    ports.begin(0.0)
    wanted = 0
    for now in range(0, 1000, 5):
        ports.next_round()
        wanted += ports.wants_another(float(now))
        assert not ports.is_fresh
    assert wanted > 5


def test_addresses_that_can_no_longer_be_called_from_a_fresh_port_are_looked_up_again() -> None:
    world = connected("auto")
    world.network.block("udp", "tcp")
    world.run(30)
    world.client.selector.renewed([], world.now)
    world.run(30)
    world.network.unblock("udp", "tcp")
    assert world.until_through(60) < 45


def test_a_server_that_asks_at_a_port_from_which_nothing_reaches_it_does_not_hold_up_the_fresh_one() -> None:
    world = connected("udp")
    spoilt, datagram = world.client.address, world.network.datagram

    def one_way(origin: str, target: str, message: bytes) -> bool:
        return origin == spoilt or datagram(origin, target, message)

    world.network.datagram = one_way  # type: ignore[method-assign]
    assert world.until_through(60) < 45
