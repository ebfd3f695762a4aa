"""What the peer's REPORTs say of the path: its rate, whether it delays, its loss of single datagrams.

    rate          between two reports 20 ms apart or more: the bytes sent, less the share of records that were lost. The
                  most of the last eight
    path rate     the rate, for a second after the path has delayed (delay.py): then it is the path's. Otherwise it is
                  only what was there to send, and binds nothing
    round trip    from sending the highest record that a report names to the report, less the time that the peer keeps
                  it; only where that one had packets, since of no other the time is known
    room          the queue is empty, and none has stood for two seconds; or in the last three samples the path
                  delivered no more than nine tenths of what it did then
    loss          of single datagrams, over no fewer than 2,000 of them, smoothed; 0 when it is under one in a million.
                  A sample counts when the next report shows that it was not the beginning of an outage

What follows of it, span.py decides. Sizes are bytes, times seconds of the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from vpntun.core.records.delay import Delay
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.records.sent_log import SentLog
from vpntun.types import NEVER

SHORTEST_SAMPLE = 0.02
RATE_SAMPLES = 8
RATE_LIMIT_HOLDS = 1.0
FEWEST_DATAGRAMS = 2000
ROOM, ROOM_SAMPLES = 0.9, 3
ROOM_IS_FOUND = 2.0
SMOOTHING = 0.25
LEAST_LOSS = 1e-6


@dataclass(slots=True)
class ReportSample:
    """What a report said, when it came, and what had been sent up to its highest counter.

    `judged`: it tells of loss.
    """

    at: float
    highest: int = -1
    opened: int = 0
    lost: int = 0
    sent: int = 0
    missing: int = 0
    bytes: int = 0
    judged: bool = True


class PathEstimator:
    """Of one path. Attributes to read:

    delay   whether the path delays what it is sent
    rate    bytes a second delivered; 0: not known
    loss    share of single datagrams lost; 0 until `loss_is_known`
    """

    def __init__(self, now: float) -> None:
        self.delay = Delay()
        self._sample = ReportSample(now)
        self._held: float | None = None
        self._rates: list[float] = []
        self.moved(0)

    def path_rate(self, now: float) -> float:
        """Bytes a second that the path delivers, where it is what limits the link; else 0."""
        return self.rate if now - self.delay.seen_at < RATE_LIMIT_HOLDS else 0.0

    def has_room(self, now: float) -> bool:
        """Whether the path would take more than it is given."""
        if not self.delay.is_empty:
            return False
        latest = max(self._rates[-ROOM_SAMPLES:], default=0)
        return now - self.delay.stood_at >= ROOM_IS_FOUND or latest <= ROOM * self._capacity

    def take(self, base: ReportSample, mark: ReportSample, sent_log: SentLog, now: float) -> None:
        """A report has come, `mark`, and `base` before it, in one session."""
        self._take_round_trip(mark.highest, sent_log, now)
        self._take_rate(base, mark)
        self._take_loss(mark)

    def idle(self) -> None:
        """Nothing was sent for a while: what limited the link then does not now."""
        self.delay.idle()
        self._rates.clear()

    def begin(self, now: float) -> None:
        """A new session: counters begin anew."""
        self._sample = ReportSample(now)
        self._held = None
        self._sampled_from = 0

    def length_changed(self, counter: int) -> None:
        """From this counter on datagrams have another length."""
        self._held = None
        self._sampled_from = counter

    def moved(self, counter: int) -> None:
        """From this counter on it is another path: nothing is known of it."""
        self.rate = self.loss = 0.0
        self.loss_is_known = False
        self.delay.moved()
        self._rates.clear()
        self._capacity = NEVER
        self._held = None
        self._sampled_from = counter

    def _take_rate(self, base: ReportSample, mark: ReportSample) -> None:
        time = mark.at - base.at
        records = mark.highest - base.highest
        if time < SHORTEST_SAMPLE or not records:
            return
        arrived = 1 - max(0, mark.lost - base.lost) / records
        self._rates.append((mark.bytes - base.bytes) * max(0.0, arrived) / time)
        del self._rates[:-RATE_SAMPLES]
        self.rate = max(self._rates)

    def _take_round_trip(self, highest: int, sent_log: SentLog, now: float) -> None:
        """Learn how long the highest record took. The peer may have waited until the next record was sent, as well.

        A message without packets tells nothing: when it was sent is not known.
        """
        if highest + 1 == sent_log.next or not sent_log.had_packets(highest):
            return
        sent = sent_log.time_of(highest)
        pause = sent_log.time_of(highest + 1) - sent
        self.delay.take(max(0.0, now - sent - INTERVAL), pause, now)
        if self.delay.is_standing:
            self._capacity = self.rate

    def _take_loss(self, mark: ReportSample) -> None:
        if self._held is not None and mark.judged:
            loss = self.loss + (self._held - self.loss) * SMOOTHING
            self.loss = loss if loss >= LEAST_LOSS else 0.0
            self.loss_is_known = True
        self._held = None
        former = self._sample
        sent = mark.sent - former.sent
        if former.highest < self._sampled_from or not mark.judged:
            self._sample = mark
        elif sent >= FEWEST_DATAGRAMS:
            self._sample = mark
            self._held = min(sent, max(0, mark.missing - former.missing)) / sent


class FadingSums:
    """What was sent and what of it was lost; what is older fades over `over` sent."""

    def __init__(self, over: int) -> None:
        self._over = over
        self.begin()

    def begin(self) -> None:
        """Forget what was."""
        self.sent = self.lost = 0.0

    def add(self, sent: int, lost: int) -> None:
        """So many were sent, and so many of them lost."""
        fading = exp(-sent / self._over)
        self.sent = self.sent * fading + sent
        self.lost = self.lost * fading + lost
