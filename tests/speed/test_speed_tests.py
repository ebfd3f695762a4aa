"""Speed tests of one process: one at a time."""

from __future__ import annotations

import pytest

from tests.speed.ends import Ends
from vpntun.errors import CannotTest


@pytest.mark.parametrize("seconds", [0, 31])
def test_other_lengths_are_refused(ends: Ends, seconds: int) -> None:
    with pytest.raises(CannotTest, match="1 to 30 seconds"):
        ends.asking.start(ends.alice.link, seconds)


def test_a_second_test_does_not_begin_while_one_runs(ends: Ends) -> None:
    ends.asking.start(ends.alice.link, 1)
    with pytest.raises(CannotTest, match="running already"):
        ends.asking.start(ends.alice.link, 1)


def test_an_end_that_is_asked_begins_no_test(ends: Ends) -> None:
    ends.asking.start(ends.alice.link, 1)
    ends.run(0.1)
    with pytest.raises(CannotTest, match="running already"):
        ends.answering.start(ends.bob.link, 1)


def test_tests_may_follow_each_other(ends: Ends) -> None:
    for _ in range(2):
        test = ends.asking.start(ends.alice.link, 1)
        ends.run(20, until=lambda test=test: not test.is_running)  # type: ignore[misc]
        assert test.status == "done"
