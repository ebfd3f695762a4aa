"""The watch for arrivals learns from REPORTs and ECHOes whether what is sent arrives. The tests set the time."""

from __future__ import annotations

import pytest

from vpntun.core.records.black_hole import (
    NOTHING_ARRIVES_AFTER,
    PROBE_EVERY,
    PROBE_EVERY_LATER,
    QUIET,
    REPORTS_ARE_LATE_AFTER,
    ArrivalWatch,
)
from vpntun.types import NEVER

NOW = 1000.0


class Path:
    """A watch, whose PROBEs are sent when they are due."""

    def __init__(self) -> None:
        self.watch = ArrivalWatch()
        self.asked: list[tuple[float, int]] = []
        """When each PROBE was sent, and its token."""

    def pass_time(self, until: float) -> None:
        while self.watch.deadline <= until:
            due = self.watch.deadline
            self.asked.append((due, self.watch.ask(due)))


@pytest.fixture
def path() -> Path:
    return Path()


def test_while_nothing_is_sent_nothing_is_asked(path: Path) -> None:
    assert path.watch.deadline == NEVER
    assert not path.watch.nothing_arrives


def test_a_report_that_is_late_is_asked_for_every_second(path: Path) -> None:
    path.watch.sent(NOW)
    path.watch.sent(NOW + 2)
    path.pass_time(NOW + 6)
    first = NOW + REPORTS_ARE_LATE_AFTER
    assert [at for at, _ in path.asked] == [first + PROBE_EVERY * count for count in range(4)]


def test_a_report_ends_the_watch_until_more_is_sent(path: Path) -> None:
    path.watch.sent(NOW)
    path.watch.arrived()
    path.pass_time(NOW + 100)
    assert path.asked == []
    path.watch.sent(NOW + 100)
    assert path.watch.deadline == NOW + 100 + REPORTS_ARE_LATE_AFTER


def test_after_15_s_without_any_nothing_arrives_and_probes_become_rare(path: Path) -> None:
    path.watch.sent(NOW)
    path.pass_time(NOW + NOTHING_ARRIVES_AFTER - 0.1)
    assert not path.watch.nothing_arrives
    path.pass_time(NOW + NOTHING_ARRIVES_AFTER)
    assert path.watch.nothing_arrives
    assert path.watch.deadline == NOW + NOTHING_ARRIVES_AFTER + PROBE_EVERY_LATER


def test_the_session_is_in_doubt_while_the_first_probe_is_unanswered_for_2_to_7_seconds(path: Path) -> None:
    path.watch.sent(NOW)
    first = NOW + REPORTS_ARE_LATE_AFTER
    path.pass_time(first + 7)
    assert [path.watch.in_doubt_for(first + seconds) for seconds in (0, 1.5, 2, 6.5, 7)] == [0, 0, 2, 6.5, 0]
    path.watch.arrived()
    assert path.watch.in_doubt_for(first + 5) == 0


def test_any_echo_counts_however_late(path: Path) -> None:
    path.watch.sent(NOW)
    path.pass_time(NOW + 30)
    assert path.watch.nothing_arrives
    assert path.watch.echoed(path.asked[0][1])
    assert not path.watch.nothing_arrives
    assert path.watch.deadline == NEVER
    assert not path.watch.echoed(path.asked[1][1]), "it awaits none now"


def test_an_echo_of_another_probe_shows_nothing(path: Path) -> None:
    path.watch.sent(NOW)
    path.pass_time(NOW + 10)
    assert not path.watch.echoed(path.asked[0][1] ^ 1)
    path.pass_time(NOW + 20)
    assert path.watch.nothing_arrives


def test_an_end_that_did_not_run_for_long_has_not_asked_enough_to_judge(path: Path) -> None:
    path.watch.sent(NOW)
    path.watch.ask(NOW + 100)
    assert not path.watch.nothing_arrives


def test_an_end_that_only_receives_asks_when_the_path_has_become_quiet(path: Path) -> None:
    for tenth in range(100):
        path.watch.received(NOW + tenth / 10)
        path.pass_time(NOW + tenth / 10)
    assert path.asked == []
    path.watch.arrived()
    path.pass_time(NOW + 9.9 + QUIET)
    ((at, token),) = path.asked
    assert at == NOW + 9.9 + QUIET
    assert path.watch.echoed(token)
    path.pass_time(NOW + 1000)
    assert len(path.asked) == 1


def test_another_session_or_path_is_judged_from_its_beginning(path: Path) -> None:
    path.watch.sent(NOW)
    path.watch.received(NOW)
    path.pass_time(NOW + 20)
    path.watch.begin()
    assert not path.watch.nothing_arrives
    assert path.watch.deadline == NEVER
