"""Whether bursts or long datagrams vanish, from what a test says was sent and reported."""

from __future__ import annotations

import pytest

from vpntun.core.records.black_hole import BURST_SILENCE, FIRST_RETRY, LAST_RETRY, SILENCE, BlackHoleDetector
from vpntun.core.records.path_estimator import ReportSample
from vpntun.core.records.pathmtu import BASE
from vpntun.core.records.sent_log import SentLog
from vpntun.types import NEVER

NOW = 1000.0
LONG = BASE + 1
NOTHING = ReportSample(NOW)


class Sender:
    """A detector, and what was sent so far."""

    def __init__(self) -> None:
        self.detector = BlackHoleDetector()
        self.sent_log = SentLog()

    def send(self, datagrams: int, size: int, at: float) -> None:
        self.sent_log.sent(self.sent_log.next, datagrams, size, NOW + at)
        self.detector.sent(datagrams, size, NOW + at)

    def report(self, opened: int, *, highest: int | None = None, base: ReportSample = NOTHING) -> bool:
        """A REPORT up to the latest counter says how many of them were opened."""
        return self.detector.reported(
            base, self.sent_log.next - 1 if highest is None else highest, opened, self.sent_log
        )

    def conclude(self, at: float, *, probe_vanished: bool = False) -> bool:
        """A datagram of the length in use has been echoed. Return whether bursts may be sent from then on."""
        self.detector.length_passes(NOW + at, probe_vanished=probe_vanished)
        return self.detector.passes


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def blocked(sender: Sender) -> Sender:
    """Bursts have vanished, and are blocked since `BURST_SILENCE`."""
    sender.send(3, 4000, 0)
    sender.send(3, 4000, 0.1)
    assert not sender.conclude(BURST_SILENCE)
    return sender


# Bursts


def test_a_fresh_path_is_taken_to_pass_bursts(sender: Sender) -> None:
    assert sender.detector.passes
    assert not sender.detector.burst_waits
    assert not sender.detector.is_seen(NOW + 1e6)
    assert sender.detector.deadline == NEVER


def test_bursts_are_looked_into_half_a_second_after_the_first_even_if_no_more_are_sent(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    sender.send(3, 4000, 0.4)
    assert sender.detector.deadline == NOW + BURST_SILENCE
    assert not sender.detector.is_seen(NOW + BURST_SILENCE - 0.01)
    assert sender.detector.is_seen(sender.detector.deadline)
    assert not sender.detector.is_seen(sender.detector.deadline, patience=0.1)
    assert sender.detector.is_seen(sender.detector.deadline + 0.1, patience=0.1)
    sender.detector.looked_into()
    assert sender.detector.deadline == NEVER
    assert sender.detector.burst_waits


def test_two_bursts_of_which_nothing_comes_are_blocked_when_a_datagram_of_their_length_comes_back(
    sender: Sender,
) -> None:
    sender.send(3, 4000, 0)
    sender.send(3, 4000, 0.4)
    assert not sender.conclude(BURST_SILENCE)


def test_a_single_burst_may_simply_be_lost_and_is_not_waited_for_any_longer(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    assert sender.conclude(10)
    assert not sender.detector.burst_waits
    assert not sender.detector.is_seen(NOW + 20)
    sender.send(3, 4000, 30)
    assert sender.conclude(40), "each was lost alone"


def test_a_single_burst_and_a_probe_that_was_sent_as_one_are_two(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    assert not sender.conclude(BURST_SILENCE, probe_vanished=True)


def test_a_probe_alone_blocks_nothing_after_bursts_have_arrived(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    assert sender.report(opened=1)
    assert sender.conclude(10, probe_vanished=True)


def test_bursts_sent_just_before_the_conclusion_may_still_arrive(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    sender.send(3, 4000, 0)
    assert sender.conclude(BURST_SILENCE - 0.01, probe_vanished=True)


def test_blocked_bursts_are_tried_again_after_five_seconds_doubling_to_ten_minutes(blocked: Sender) -> None:
    pauses, now = [], NOW + BURST_SILENCE
    for _ in range(9):
        pauses.append(round(blocked.detector.retry_at - now))
        now = blocked.detector.retry_at
        blocked.detector.retried(now)
        assert not blocked.detector.passes, "before a PROBE has come back"
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]
    assert (FIRST_RETRY, LAST_RETRY) == (5, 600)


def test_a_probe_that_comes_back_as_a_burst_ends_the_block_but_not_the_growth_of_the_pause(blocked: Sender) -> None:
    blocked.detector.burst_echoed()
    assert blocked.detector.passes
    blocked.send(3, 4000, 10)
    blocked.send(3, 4000, 10)
    assert not blocked.conclude(11)
    assert blocked.detector.retry_at == NOW + 11 + 2 * FIRST_RETRY


def test_a_burst_that_comes_through_after_all_ends_the_block_and_the_next_pause_is_short_again(
    blocked: Sender,
) -> None:
    assert blocked.report(opened=2)
    assert blocked.detector.passes
    blocked.send(3, 4000, 10)
    blocked.send(3, 4000, 10)
    assert not blocked.conclude(11)
    assert blocked.detector.retry_at == NOW + 11 + FIRST_RETRY


def test_bursts_from_before_a_block_do_not_count_when_they_are_tried_again(blocked: Sender) -> None:
    blocked.detector.burst_echoed()
    blocked.send(3, 4000, 10)
    assert blocked.conclude(20), "one may simply be lost"


def test_on_another_path_nothing_is_blocked(blocked: Sender) -> None:
    blocked.detector.moved()
    assert blocked.detector.passes
    assert blocked.detector.retry_at == NEVER


def test_what_was_sent_in_longer_datagrams_or_another_session_is_not_waited_for(sender: Sender) -> None:
    sender.send(3, 4000, 0)
    sender.send(3, 4000, 0)
    sender.send(1, LONG, 0)
    assert sender.detector.is_seen(NOW + SILENCE)
    sender.detector.begin()
    assert not sender.detector.is_seen(NOW + 10)
    assert sender.detector.deadline == NEVER
    assert sender.conclude(10)


# Long datagrams


def test_a_long_datagram_of_which_nothing_is_heard_for_a_second_is_seen_and_a_short_one_is_not(sender: Sender) -> None:
    sender.send(1, BASE, 0)
    assert not sender.detector.is_seen(NOW + 10)
    sender.send(1, LONG, 0.5)
    sender.send(1, LONG, 5)
    assert not sender.detector.is_seen(NOW + 0.5 + SILENCE - 0.01)
    assert sender.detector.is_seen(NOW + 0.5 + SILENCE)


def test_long_datagrams_that_vanish_block_no_bursts(sender: Sender) -> None:
    for _ in range(5):
        sender.send(1, LONG, 0)
    assert sender.detector.deadline == NEVER
    assert sender.conclude(10)


def test_a_report_of_a_long_datagram_ends_the_waiting(sender: Sender) -> None:
    sender.send(1, BASE, 0)
    sender.send(1, LONG, 0)
    assert sender.report(opened=1, highest=1)
    assert not sender.detector.is_seen(NOW + 10)


def test_a_report_that_short_ones_explain_does_not_end_it_but_one_more_opened_does(sender: Sender) -> None:
    sender.send(1, LONG, 0)
    sender.send(1, LONG, 0)
    sender.send(1, BASE, 0)
    sender.report(opened=1)
    assert sender.detector.is_seen(NOW + 10)
    sender.report(opened=2)
    assert not sender.detector.is_seen(NOW + 10)


# What a REPORT tells of loss


def test_where_only_single_datagrams_were_sent_every_report_tells_of_loss(sender: Sender) -> None:
    for _ in range(10):
        sender.send(1, 1000, 0)
    assert sender.report(opened=5)


def test_a_report_between_bursts_that_shows_none_completed_tells_of_none(sender: Sender) -> None:
    for size in (1, 3, 1, 3, 1):
        sender.send(size, 1000 * size, 0)
    assert not sender.report(opened=3), "the three single ones"
    assert sender.report(opened=4)


def test_a_report_of_no_further_counter_tells_of_none_while_a_burst_is_awaited(sender: Sender) -> None:
    sender.send(1, 1000, 0)
    sender.send(3, 4000, 0)
    base = ReportSample(NOW, highest=0, opened=1, sent=1)
    assert not sender.report(opened=2, highest=0, base=base)


def test_a_report_whose_highest_is_a_burst_tells_of_one_completed(sender: Sender) -> None:
    sender.send(1, 1000, 0)
    sender.send(3, 4000, 0)
    assert sender.report(opened=1)


def test_a_report_of_single_datagrams_while_bursts_are_blocked_tells_of_loss_and_unblocks_nothing(
    blocked: Sender,
) -> None:
    base = ReportSample(NOW, highest=1, opened=0, sent=6)
    for _ in range(10):
        blocked.send(1, 1000, 2)
    assert blocked.report(opened=8, base=base)
    assert not blocked.detector.passes
