"""What is estimated of a path from REPORTs that a test makes up: rate, loss, round trip and room."""

from __future__ import annotations

from math import exp

import pytest

from vpntun.core.records.path_estimator import (
    FEWEST_DATAGRAMS,
    RATE_LIMIT_HOLDS,
    ROOM_IS_FOUND,
    FadingSums,
    PathEstimator,
    ReportSample,
)
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.records.sent_log import SentLog

NOW = 1000.0
SIZE = 1000


class Path:
    """An estimator, and REPORTs of what was sent: records of one datagram of 1,000 bytes."""

    def __init__(self) -> None:
        self.estimator = PathEstimator(NOW)
        self.sent_log = SentLog()
        self.base = ReportSample(NOW)
        self.lost = 0

    def report(
        self, count: int, *, lost: int = 0, every: float = 0.1, round_trip: float = 0.02, judged: bool = True
    ) -> None:
        """Send so many records, the last of them `round_trip` before their REPORT; the next one follows at once."""
        now = self.base.at + every
        sent_at = now - INTERVAL - round_trip
        for _ in range(count):
            self.sent_log.sent(self.sent_log.next, 1, SIZE, sent_at)
        highest = self.sent_log.next - 1
        self.sent_log.sent(self.sent_log.next, 1, SIZE, sent_at)
        self.lost += lost
        mark = ReportSample(
            now,
            highest,
            highest + 1 - self.lost,
            self.lost,
            self.sent_log.datagrams_to(highest),
            self.lost,
            self.sent_log.bytes_to(highest),
            judged,
        )
        if self.base.highest >= 0:
            self.estimator.take(self.base, mark, self.sent_log, now)
        self.base = mark

    @property
    def now(self) -> float:
        return self.base.at


@pytest.fixture
def path() -> Path:
    path = Path()
    path.estimator.delay.note_probe(0.02, NOW)
    path.report(9)
    return path


@pytest.fixture
def counting(path: Path) -> Path:
    """A path whose loss is counted from the latest REPORT on."""
    path.report(9)
    return path


# The rate


def test_the_rate_is_what_arrived_between_two_reports(path: Path) -> None:
    assert path.estimator.rate == 0
    path.report(99)
    assert path.estimator.rate == pytest.approx(100 * SIZE / 0.1)
    path.report(99, lost=75)
    assert path.estimator.rate == pytest.approx(100 * SIZE / 0.1), "the most of the last eight"


def test_what_was_lost_did_not_arrive(path: Path) -> None:
    path.report(99, lost=75)
    assert path.estimator.rate == pytest.approx(25 * SIZE / 0.1)


def test_the_most_of_eight_samples_counts(path: Path) -> None:
    path.report(999)
    for _ in range(7):
        path.report(9)
        assert path.estimator.rate == pytest.approx(1000 * SIZE / 0.1)
    path.report(9)
    assert path.estimator.rate == pytest.approx(10 * SIZE / 0.1)


def test_reports_that_follow_each_other_too_soon_say_nothing_of_the_rate(path: Path) -> None:
    path.report(99, every=0.019)
    assert path.estimator.rate == 0
    path.report(99, every=0.021)
    assert path.estimator.rate > 0


def test_a_rate_that_nothing_delayed_binds_nothing(path: Path) -> None:
    path.report(99)
    assert path.estimator.path_rate(path.now) == 0


def test_a_path_that_delays_is_the_limit_for_a_second(path: Path) -> None:
    for _ in range(4):
        path.report(99, round_trip=0.06)
    assert path.estimator.path_rate(path.now) == path.estimator.rate > 0
    assert path.estimator.path_rate(path.now + RATE_LIMIT_HOLDS - 0.01) > 0
    assert path.estimator.path_rate(path.now + RATE_LIMIT_HOLDS + 0.01) == 0


def test_idleness_forgets_what_limited_the_link_but_not_the_loss(path: Path) -> None:
    for _ in range(4):
        path.report(1999, lost=100, round_trip=0.06)
    path.estimator.idle()
    assert path.estimator.path_rate(path.now) == 0
    assert path.estimator.has_room(path.now)
    assert path.estimator.loss > 0
    path.report(9)
    assert path.estimator.rate == pytest.approx(10 * SIZE / 0.1), "the rates before are forgotten"


# The round trip


def test_the_round_trip_is_without_the_time_that_the_peer_keeps_a_report(path: Path) -> None:
    for _ in range(4):
        path.report(99, round_trip=0.02)
    assert path.estimator.delay.is_empty


def test_of_the_latest_record_nothing_is_learned_since_the_peer_may_have_waited_for_the_next(path: Path) -> None:
    path.sent_log.sent(path.sent_log.next, 1, SIZE, NOW)
    highest = path.sent_log.next - 1
    mark = ReportSample(NOW + 9, highest, highest + 1, 0, highest + 1, 0, 0)
    path.estimator.take(path.base, mark, path.sent_log, NOW + 9)
    assert path.estimator.delay.is_empty


# Room


def test_a_standing_queue_leaves_no_room_until_it_has_been_empty_for_two_seconds(path: Path) -> None:
    assert path.estimator.has_room(path.now)
    for _ in range(4):
        path.report(99, round_trip=0.06)
    stood = path.now
    assert not path.estimator.has_room(path.now)
    for _ in range(15):
        path.report(99)
    assert path.estimator.delay.is_empty
    assert not path.estimator.has_room(stood + ROOM_IS_FOUND - 0.1)
    assert path.estimator.has_room(stood + ROOM_IS_FOUND)


def test_a_link_that_asks_for_less_than_the_path_took_has_room_at_once(path: Path) -> None:
    for _ in range(4):
        path.report(99, round_trip=0.06)
    for _ in range(3):
        path.report(91)
    assert not path.estimator.has_room(path.now), "more than nine tenths"
    for _ in range(3):
        path.report(85)
    assert path.estimator.has_room(path.now)


# Loss


def test_a_sample_counts_when_the_next_report_shows_that_no_outage_followed(counting: Path) -> None:
    counting.report(FEWEST_DATAGRAMS - 1, lost=20)
    assert (counting.estimator.loss, counting.estimator.loss_is_known) == (0, False)
    counting.report(9)
    assert counting.estimator.loss == pytest.approx(20 / FEWEST_DATAGRAMS / 4)
    assert counting.estimator.loss_is_known


def test_a_sample_before_a_report_that_is_not_judged_is_dropped(counting: Path) -> None:
    counting.report(FEWEST_DATAGRAMS - 1, lost=1000)
    counting.report(9, judged=False)
    counting.report(9)
    assert not counting.estimator.loss_is_known


def test_fewer_than_two_thousand_datagrams_are_no_sample(counting: Path) -> None:
    counting.report(FEWEST_DATAGRAMS - 2, lost=20)
    counting.report(9)
    assert not counting.estimator.loss_is_known
    counting.report(9)
    assert counting.estimator.loss == pytest.approx(20 / (FEWEST_DATAGRAMS + 9) / 4)


def test_loss_is_smoothed_and_forgotten_below_one_in_a_million(counting: Path) -> None:
    for _ in range(40):
        counting.report(FEWEST_DATAGRAMS - 1, lost=20)
    assert counting.estimator.loss == pytest.approx(0.01, rel=0.01)
    for _ in range(40):
        counting.report(FEWEST_DATAGRAMS - 1)
        assert counting.estimator.loss == 0 or counting.estimator.loss >= 1e-6
    assert counting.estimator.loss == 0


def test_more_missing_than_was_sent_is_all_and_less_than_nothing_is_nothing(counting: Path) -> None:
    counting.report(FEWEST_DATAGRAMS - 1, lost=9 * FEWEST_DATAGRAMS)
    counting.report(FEWEST_DATAGRAMS - 1, lost=-9 * FEWEST_DATAGRAMS)
    assert counting.estimator.loss == 0.25
    counting.report(9)
    assert counting.estimator.loss == pytest.approx(0.25 * 0.75)


@pytest.mark.parametrize("change", ["length_changed", "moved"])
def test_what_was_sent_before_a_change_of_the_path_is_in_no_sample(counting: Path, change: str) -> None:
    counting.report(FEWEST_DATAGRAMS - 1, lost=1000)
    counter = counting.sent_log.next + 5
    getattr(counting.estimator, change)(counter)
    counting.report(9)
    assert counting.estimator.loss == 0
    counting.report(FEWEST_DATAGRAMS - 1)
    counting.report(9)
    assert counting.estimator.loss_is_known
    assert counting.estimator.loss == 0


def test_a_new_session_keeps_what_was_learned_and_counts_from_its_own_beginning(counting: Path) -> None:
    counting.report(FEWEST_DATAGRAMS - 1, lost=20)
    counting.report(FEWEST_DATAGRAMS - 1, lost=FEWEST_DATAGRAMS)  # not judged before the session ends
    counting.estimator.length_changed(counting.sent_log.next)
    loss, rate = counting.estimator.loss, counting.estimator.rate
    assert loss > 0
    counting.estimator.begin(counting.now)
    counting.sent_log.begin()
    counting.base, counting.lost = ReportSample(counting.now), 0
    for _ in range(3):
        counting.report(9)
    assert (counting.estimator.loss, counting.estimator.rate) == (loss, rate)
    counting.report(FEWEST_DATAGRAMS - 1, lost=20)
    counting.report(9)
    sent = FEWEST_DATAGRAMS + 10
    assert counting.estimator.loss == pytest.approx(loss + (20 / sent - loss) / 4)


def test_of_another_path_nothing_is_known(counting: Path) -> None:
    for _ in range(4):
        counting.report(FEWEST_DATAGRAMS - 1, lost=20, round_trip=0.06)
    counting.estimator.moved(counting.sent_log.next)
    assert (counting.estimator.rate, counting.estimator.loss, counting.estimator.loss_is_known) == (0, 0, False)
    assert counting.estimator.has_room(counting.now)
    assert counting.estimator.path_rate(counting.now) == 0
    counting.report(9)
    assert counting.estimator.rate == pytest.approx(10 * SIZE / 0.1), "the rates before are another path's"


# Sums that fade


def test_what_is_older_fades_over_what_was_sent_since() -> None:
    sums = FadingSums(1000)
    sums.add(500, 5)
    assert (sums.sent, sums.lost) == (500, 5)
    sums.add(1000, 0)
    assert sums.sent == pytest.approx(1000 + 500 * exp(-1))
    assert sums.lost == pytest.approx(5 * exp(-1))
    sums.begin()
    assert (sums.sent, sums.lost) == (0, 0)
