"""The end that is asked for speed tests, and what a hostile asker can make it do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.speed.ends import Ends
from vpntun.core.speed.agreement import LONGEST
from vpntun.speed.answering import LATEST_END, SECONDS_AT_ONCE, SECONDS_TO_END, SHARE_OF_TIME

anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.integers())


def demand(ends: Ends, do: str, test: int = 7, **more: Any) -> dict[str, Any]:
    return dict(ends.answering.answer(ends.bob.link, {"do": do, "test": test, **more}))


def test_a_sender_sends_no_longer_than_it_was_asked_to(ends: Ends) -> None:
    assert demand(ends, "send", seconds=2) == {"agreed": True}
    for _ in range(8):
        ends.run(0.5)
        demand(ends, "state")
    assert not ends.answering.is_busy
    carried = ends.carried
    ends.run(1)
    assert ends.carried - carried < 2000


def test_a_sender_whose_asker_is_silent_stops_within_two_seconds(ends: Ends) -> None:
    demand(ends, "send", seconds=30)
    ends.run(2.5)
    assert not ends.answering.is_busy
    assert demand(ends, "state")["running"] is False


def test_load_that_nobody_reports_ends_the_sending(ends: Ends) -> None:
    """Alice has not agreed, so she drops the load, and reports none of it."""
    demand(ends, "send", seconds=30)
    for _ in range(6):
        ends.run(0.5)
        demand(ends, "state")
    assert not ends.answering.is_busy
    assert ends.alice.drops["load without a test"] > 0
    assert ends.carried < 500_000


def test_a_receiver_waits_for_a_silent_asker_for_five_seconds(ends: Ends) -> None:
    demand(ends, "receive", seconds=2)
    ends.run(4)
    assert ends.answering.is_busy
    ends.run(2)
    assert not ends.answering.is_busy


def test_a_receiver_ends_even_if_its_asker_never_does(ends: Ends) -> None:
    demand(ends, "receive", seconds=2)
    for _ in range(30):
        demand(ends, "state")
        ends.run(0.5)
    assert not ends.answering.is_busy


def test_one_test_runs_at_a_time(ends: Ends) -> None:
    assert demand(ends, "receive", seconds=2) == {"agreed": True}
    assert demand(ends, "send", 8, seconds=2) == {"refused": "busy"}
    demand(ends, "stop")
    assert demand(ends, "send", 8, seconds=2) == {"agreed": True}


def test_an_end_that_asks_itself_is_busy(ends: Ends) -> None:
    ends.answering.start(ends.bob.link, 2)
    assert demand(ends, "receive", seconds=2) == {"refused": "busy"}


def test_many_short_tests_may_follow_each_other(ends: Ends) -> None:
    for number in range(SECONDS_AT_ONCE // (1 + SECONDS_TO_END)):
        assert demand(ends, "receive", number, seconds=1) == {"agreed": True}
        demand(ends, "stop", number)
    assert demand(ends, "receive", 99, seconds=1) == {"refused": "too often"}


def test_a_peer_that_asks_all_the_time_gets_a_share_of_it_and_leaves_the_rest_to_others(ends: Ends) -> None:
    """It never ends a test, and asks for the next one at once."""
    busy, hours, agreed = 0, 2, 0
    for number in range(round(hours * 3600 / 0.5)):
        if "agreed" in demand(ends, "receive", number, seconds=LONGEST):
            agreed = number
        demand(ends, "state", agreed)
        ends.loop.pass_time(0.5)
        busy += ends.answering.is_busy
    longest = LONGEST + LATEST_END
    allowed = (SECONDS_AT_ONCE + SHARE_OF_TIME * hours * 3600) / (LONGEST + SECONDS_TO_END) * longest
    assert 0.2 * hours * 3600 < busy * 0.5 < allowed + longest
    ends.run(longest, until=lambda: not ends.answering.is_busy)
    other = ends.answering.answer(ends.alice.link, {"do": "receive", "test": 1, "seconds": LONGEST})
    assert other == {"agreed": True}, "it has its own time"


def test_only_the_asker_learns_of_its_test(ends: Ends) -> None:
    demand(ends, "receive", seconds=2)
    assert demand(ends, "state", 8) == {"refused": "no such test"}
    other = dict(ends.answering.answer(ends.alice.link, {"do": "stop", "test": 7}))
    assert other == {"refused": "no such test"}
    assert ends.answering.is_busy


@pytest.mark.parametrize("seconds", [0, 31, -1, 2.5, "2", True, None, 1 << 70])
def test_other_lengths_are_refused(ends: Ends, seconds: object) -> None:
    assert demand(ends, "send", seconds=seconds) == {"refused": "bad request"}


@given(st.sampled_from(["send", "receive", "state", "stop"]) | anything, anything, anything)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_nonsense_is_answered_and_begins_nothing(ends: Ends, do: object, test: object, seconds: object) -> None:
    answer = dict(ends.answering.answer(ends.bob.link, {"do": do, "test": test, "seconds": seconds}))
    assert set(answer) <= {"refused", "agreed", "running", "bytes", "rate", "sent", "lost"}
    if answer == {"agreed": True}:
        assert isinstance(test, int)
        assert isinstance(seconds, int)
        assert 1 <= seconds <= 30
        demand(ends, "stop", test)
