"""Rounds through the addresses of a name: several at a time, each once, none in vain, and never a flood."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.core.simulation import World
from vpntun.core.selection.round import GAP, LONGEST_GAP, MOST_AT_ONCE, Round
from vpntun.types import NEVER, Transport

TWELVE = tuple(f"server-{number}" for number in range(12))
BOTH = ("server-v4", "server-v6")


def world_of(names: tuple[str, ...], *alive: str, transport: Transport = "udp") -> World:
    """A world in which the server has these addresses, and only those `alive` answer."""
    world = World(transport, names=names)
    world.network.swallowed.update(set(names) - set(alive))
    world.start()
    return world


@pytest.mark.parametrize("alive", [TWELVE[0], TWELVE[3], TWELVE[7], TWELVE[-1]])
@pytest.mark.parametrize(("transport", "limit"), [("udp", 8.0), ("auto", 8.0), ("tcp", 13.0)])
def test_of_twelve_addresses_the_one_that_answers_is_found_soon(alive: str, transport: Transport, limit: float) -> None:
    assert world_of(TWELVE, alive, transport=transport).until_through(limit) <= limit


def test_an_address_that_answers_in_time_is_the_only_one_that_is_asked() -> None:
    world = world_of(TWELVE, *TWELVE)
    world.run(60)
    assert len(world.times("client", "asks", "udp")) == 1
    world = world_of(TWELVE, *TWELVE, transport="tcp")
    world.run(60)
    assert len(world.times("client", "dials", "tcp")) == 1


def test_of_a_hundred_addresses_at_most_eight_are_asked_in_five_seconds_and_dialled_at_a_time() -> None:
    names = tuple(f"server-{number}" for number in range(100))
    world = world_of(names, transport="auto")
    world.run(300)
    for what, carrier in (("asks", "udp"), ("dials", "tcp")):
        times = world.times("client", what, carrier)  # type: ignore[arg-type]
        assert len(times) > MOST_AT_ONCE
        in_five = [sum(begun <= each < begun + 5.0 for each in times) for begun in times]
        assert max(in_five) <= MOST_AT_ONCE
        if what == "asks":
            assert min(later - earlier for earlier, later in pairwise(times)) >= GAP * 0.99


def test_in_a_long_outage_a_name_with_many_addresses_is_not_asked_more_often_than_before() -> None:
    world = world_of(TWELVE[:8])
    world.run(3600)
    late = world.times("client", "asks", "udp", since=world.now - 1800)
    assert len(late) <= 8 * 1800 / 32
    assert len(late) >= 8 * 1800 / 41


@pytest.mark.parametrize(("mute", "limit"), [(1, 15.0), (7, 60.0), (11, 600.0)])
def test_addresses_whose_answers_are_lost_do_not_keep_others_from_being_answered(mute: int, limit: float) -> None:
    # The server answers only the first copy of an initiation, so the copy that takes a good path comes too late.
    names = TWELVE[: mute + 1]
    world = World("udp", names=names)
    world.network.mute.update(names[:-1])
    world.start()
    assert world.until_through(limit) <= limit


def test_with_a_long_round_trip_each_address_waits_for_it() -> None:
    world = World("udp", names=BOTH)
    world.network.udp.latency = 0.3
    world.start()
    world.until_through(5)
    world.restart_server()
    asked = world.now
    world.run(30)
    world.until_through(5)
    both = [time for time in world.times("client", "asks", "udp") if time > asked]
    assert all(later - earlier >= LONGEST_GAP for earlier, later in pairwise(both))
    assert world.talk(100) == 0


def test_the_first_answer_of_several_copies_makes_one_session() -> None:
    world = World("udp", names=BOTH)
    world.network.udp.latency = 0.4
    world.start()
    world.run(3)
    assert len(world.times("client", "asks", "udp")) >= 2
    assert len(world.times("client", "established", "udp")) == 1
    assert world.client.peer.round_trip == pytest.approx(0.8)
    assert world.talk(100) == 0


def test_when_the_first_address_is_dead_the_round_trip_is_that_of_the_copy_that_was_answered() -> None:
    world = world_of(BOTH, "server-v6")
    assert world.until_through(2) <= 2
    assert world.client.peer.round_trip == pytest.approx(0.02)


# Single steps


def test_each_address_is_due_once_in_a_round() -> None:
    step = Round()
    step.begin(3, 3)
    assert step.next_at == NEVER
    indices, now = [], 10.0
    while True:
        indices.append(step.next(3))
        step.asked(now, 0.0)
        if step.next_at == NEVER:
            break
        assert step.next_at == now + GAP
        now = step.next_at
    assert indices == [0, 1, 2]
    assert step.left == 0


@pytest.mark.parametrize(("round_trip", "gap"), [(0.0, GAP), (0.1, GAP), (0.3, 0.6), (5.0, LONGEST_GAP)])
def test_the_gap_grows_with_the_round_trip(round_trip: float, gap: float) -> None:
    step = Round()
    step.begin(2, 2)
    step.asked(0.0, round_trip)
    assert step.next_at == gap


def test_each_round_begins_with_another_address() -> None:
    step = Round()
    firsts = []
    for _ in range(4):
        step.begin(4, 4)
        first, *_ = (step.next(4) for _ in range(4))
        firsts.append(first)
    assert sorted(firsts) == [0, 1, 2, 3]


def test_a_round_that_has_ended_asks_nobody() -> None:
    step = Round()
    step.begin(2, 2)
    step.asked(0.0, 0.0)
    step.end()
    assert (step.left, step.next_at) == (0, NEVER)
