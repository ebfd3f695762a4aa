"""Estimates of the path from the peer's REPORTs: rate, delay, and loss of single datagrams.

    rate          bytes sent between two reports at least 20 ms apart, less the share of records that were lost. The
                  highest of the last eight samples
    path rate     the rate, for a second after the path has delayed packets (delay.py): then it is the path's rate.
                  Otherwise it only shows how much there was to send, and limits nothing
    round trip    from sending the highest record that a report names to the report, less the time that the peer keeps
                  the report. Measured only if that record had packets: the time of others is not known
    room          the queue is empty, and was last standing at least two seconds ago; or in the last three samples the
                  path delivered at most nine tenths of its rate at that time
    loss          of single datagrams, over at least 2,000 of them, smoothed; 0 if it is under one in a million. A
                  sample counts when the next report shows that it was not the beginning of an outage

span.py decides what follows from these. Sizes are bytes, times seconds of the caller's clock.
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
    """Contents of a report, when it came, what had been sent up to its highest counter, and when that was sent.

    `judged`: whether its losses count as loss, rather than as an outage or a black hole.
    """

    at: float
    highest: int = -1
    opened: int = 0
    lost: int = 0
    sent: int = 0
    missing: int = 0
    bytes: int = 0
    judged: bool = True
    sent_at: float = 0.0


class PathEstimator:
    """Estimates for one path. Attributes to read:

    delay   whether the path delays packets
    rate    bytes a second delivered; 0 if unknown
    loss    share of single datagrams lost; 0 until `loss_is_known`
    """

    def __init__(self, now: float) -> None:
        self.delay = Delay()
        self._loss_since = ReportSample(now)
        self._unconfirmed_loss: float | None = None
        self._rates: list[float] = []
        self.moved(0)

    def path_rate(self, now: float) -> float:
        """Bytes a second that the path delivers, if the path limits the link; else 0."""
        return self.rate if now - self.delay.seen_at < RATE_LIMIT_HOLDS else 0.0

    def has_room(self, now: float) -> bool:
        """Whether the path would take more than is sent."""
        if not self.delay.is_empty:
            return False
        latest = max(self._rates[-ROOM_SAMPLES:], default=0)
        return now - self.delay.stood_at >= ROOM_IS_FOUND or latest <= ROOM * self._capacity

    def take(self, previous: ReportSample, sample: ReportSample, sent_log: SentLog, now: float) -> None:
        """Learn from a report that has come. `previous`: the report before it in the same session."""
        self._take_round_trip(sample.highest, sent_log, now)
        self._take_rate(previous, sample)
        self._take_loss(sample)

    def idle(self) -> None:
        """Forget what limited the link, since nothing was sent for a while."""
        self.delay.idle()
        self._rates.clear()

    def begin(self, now: float) -> None:
        """Begin in a new session, whose counters start at 0."""
        self._loss_since = ReportSample(now)
        self._unconfirmed_loss = None
        self._sampled_from = 0

    def length_changed(self, counter: int) -> None:
        """Start a new sample of loss: from this counter on, datagrams have another length."""
        self._unconfirmed_loss = None
        self._sampled_from = counter

    def moved(self, counter: int) -> None:
        """Forget everything: from this counter on, it is another path."""
        self.rate = self.loss = 0.0
        self.loss_is_known = False
        self.delay.moved()
        self._rates.clear()
        self._capacity = NEVER
        self._unconfirmed_loss = None
        self._sampled_from = counter

    def _take_rate(self, previous: ReportSample, sample: ReportSample) -> None:
        time = sample.at - previous.at
        records = sample.highest - previous.highest
        if time < SHORTEST_SAMPLE or not records:
            return
        arrived = 1 - max(0, sample.lost - previous.lost) / records
        self._rates.append((sample.bytes - previous.bytes) * max(0.0, arrived) / time)
        del self._rates[:-RATE_SAMPLES]
        self.rate = max(self._rates)

    def _take_round_trip(self, highest: int, sent_log: SentLog, now: float) -> None:
        """Learn the round trip of the highest record. It may include waiting until the next record was sent.

        A message without packets is no use: the time when it was sent is not known.
        """
        if highest + 1 == sent_log.next or not sent_log.had_packets(highest):
            return
        sent = sent_log.time_of(highest)
        pause = sent_log.time_of(highest + 1) - sent
        self.delay.take(max(0.0, now - sent - INTERVAL), pause, now)
        if self.delay.is_standing:
            self._capacity = self.rate

    def _take_loss(self, sample: ReportSample) -> None:
        if self._unconfirmed_loss is not None and sample.judged:
            loss = self.loss + (self._unconfirmed_loss - self.loss) * SMOOTHING
            self.loss = loss if loss >= LEAST_LOSS else 0.0
            self.loss_is_known = True
        self._unconfirmed_loss = None
        first = self._loss_since
        sent = sample.sent - first.sent
        if first.highest < self._sampled_from or not sample.judged:
            self._loss_since = sample
        elif sent >= FEWEST_DATAGRAMS:
            self._loss_since = sample
            self._unconfirmed_loss = min(sent, max(0, sample.missing - first.missing)) / sent


class FadingSums:
    """Sums of datagrams sent and lost, in which older ones fade: by a factor of e for every `over` sent."""

    def __init__(self, over: int) -> None:
        self._over = over
        self.begin()

    def begin(self) -> None:
        """Start at zero."""
        self.sent = self.lost = 0.0

    def add(self, sent: int, lost: int) -> None:
        """Add `sent` datagrams, of which `lost` were lost."""
        fading = exp(-sent / self._over)
        self.sent = self.sent * fading + sent
        self.lost = self.lost * fading + lost
