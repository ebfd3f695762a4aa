"""Schedule of deadlines: it knows the earliest of all, and asks only the links that were touched."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from vpntun.runtime.schedule import FRESH, Schedule
from vpntun.types import NEVER


class Thing:
    """Timed object with a settable deadline; `handled` counts calls of its handler, `asked` reads of its deadline."""

    def __init__(self, deadline: float = NEVER) -> None:
        self.touched = False
        self.at = deadline
        self.handled = 0
        self.asked = 0

    @property
    def deadline(self) -> float:
        self.asked += 1
        return self.at

    def handle_deadline(self) -> None:
        self.handled += 1
        self.at = NEVER


def scheduled(*deadlines: float) -> tuple[Schedule, list[Thing]]:
    schedule, things = Schedule(), [Thing(deadline) for deadline in deadlines]
    for thing in things:
        schedule.touch(thing)
    return schedule, things


def test_an_empty_schedule_has_no_deadline() -> None:
    schedule = Schedule()
    assert schedule.deadline() == NEVER
    schedule.handle(1e9)


def test_only_the_earliest_is_handled_at_its_time() -> None:
    schedule, (one, two, three) = scheduled(5.0, 3.0, NEVER)
    assert schedule.deadline() == 3.0
    schedule.handle(3.0)
    assert (one.handled, two.handled, three.handled) == (0, 1, 0)
    assert schedule.deadline() == 5.0


def test_a_deadline_that_has_moved_to_a_later_time_causes_no_wake_up() -> None:
    schedule, (one,) = scheduled(3.0)
    assert schedule.deadline() == 3.0
    one.at = 9.0  # without a `touch`
    assert schedule.deadline() == 9.0
    schedule.handle(8.0)
    assert one.handled == 0


def test_a_deadline_that_has_become_earlier_is_noticed_once_touched() -> None:
    schedule, (one, _) = scheduled(9.0, 5.0)
    assert schedule.deadline() == 5.0
    one.at = 2.0
    schedule.touch(one)
    assert schedule.deadline() == 2.0


def test_a_forgotten_link_is_not_handled_even_if_it_was_just_touched() -> None:
    schedule, (one, two) = scheduled(1.0, 2.0)
    schedule.forget(one)
    schedule.touch(one)
    assert schedule.deadline() == 2.0
    schedule.handle(5.0)
    assert (one.handled, two.handled) == (0, 1)


def test_links_that_are_always_busy_do_not_make_the_heap_grow() -> None:
    schedule, things = scheduled(*[1e6] * 100)

    def be_busy(turns: range) -> int:
        for turn in turns:
            for deadline in (float(turn), 1e6):
                for thing in things:
                    thing.at = deadline
                    schedule.touch(thing)
                assert schedule.deadline() == deadline
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = be_busy(range(10))
        assert be_busy(range(10, 510)) < before + 100_000
    finally:
        tracemalloc.stop()


def test_a_turn_asks_only_the_touched_links_and_the_first() -> None:
    schedule, things = scheduled(*(float(number) for number in range(1, 1001)))
    schedule.deadline()
    for thing in things:
        thing.asked = 0
    schedule.touch(things[500])
    schedule.deadline()
    assert sum(thing.asked for thing in things) <= 3


def test_the_earliest_deadline_is_reused_until_a_link_is_touched() -> None:
    schedule, (one, two) = scheduled(3.0, 5.0)
    assert schedule.deadline(1.0) == 3.0
    one.asked = two.asked = 0
    one.at = 4.0
    assert schedule.deadline(1.0 + FRESH / 2) == 3.0
    assert one.asked == two.asked == 0
    assert schedule.deadline(1.0 + FRESH) == 4.0
    two.at = 2.0
    schedule.touch(two)
    assert schedule.deadline(1.0 + FRESH) == 2.0


steps = st.lists(st.tuples(st.integers(0, 4), st.floats(0, 50)), max_size=60)


@given(steps)
def test_the_earliest_deadline_is_right_after_any_sequence_of_moves(moves: list[tuple[int, float]]) -> None:
    schedule, things = scheduled(*(10.0 * number for number in range(5)))
    for which, deadline in moves:
        things[which].at = deadline
        schedule.touch(things[which])
        assert schedule.deadline() == min(thing.at for thing in things)
        now = deadline / 2
        due = [thing for thing in things if thing.at <= now]
        before = [thing.handled for thing in things]
        schedule.handle(now)
        assert [thing for thing, count in zip(things, before, strict=True) if thing.handled > count] == due
        assert schedule.deadline() == min(thing.at for thing in things)
