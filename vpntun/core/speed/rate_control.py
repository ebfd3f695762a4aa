"""Rate at which a speed test sends, from the peer's REPORTs and from round trips: fast, but without a long queue.

    start     send 2.5 times what was delivered, until that grows no more, a queue builds up, or much is lost
    drain     send less than is delivered, until the queue is gone
    cruise    send what is delivered. In two of eight rounds send a quarter more, to see whether more is delivered: if
              so, send twice as much for as long as that grows. In the next round send a quarter less, so that the queue
              of those empties

    round       the time until a REPORT shows what a changed rate has done: a round trip, and the time that the peer
                keeps a REPORT
    delivered   bytes a second that arrived, by the slower of the clocks of sending and of reporting, over at least
                40 ms; the highest of the last two seconds counts, because nothing makes a path look too fast
    queueing    bytes are reported for longer than they were sent for, three samples in a row: a queue grows
    wait        what the last six round trips have in common above the shortest one: a standing queue. A busy machine
                delays PROBEs, too, but not six in a row. The start ends sooner: after two long ones, if REPORTs show
                that a queue grows, or after five that are surely long
    floor       the least loss among the last eight samples, each of at least 140 kB. It is random, so as much more is
                sent. A loss over twice as high plus 5% is a queue that overflows: then no more is tried for a while

Beside other senders the test yields: their queue counts, too. It sends at least an eighth of what it found lately.
No more than a quarter of a second's bytes are sent without a REPORT, so a dead path ends the sending.

Sizes are bytes, times seconds of the caller's clock, rates bytes a second.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from vpntun.types import NEVER

FIRST_RATE = 128e3
START_GAIN = 2.5
GROWTH = 1.25
ROUNDS_WITHOUT_GROWTH = 3
UP, UP_AGAIN, DOWN = 1.25, 2.0, 0.75
MORE = 1.12
CYCLE = 8
UP_ROUNDS = 2
DRAIN, FAST_DRAIN = 0.75, 0.5
LEAST_SHARE = 0.125

SHORTEST_SAMPLE = 0.04
REPORT_LAG = 0.1
"""Seconds until a message is reported: 50 to 100 ms (core/records/receive_stats.py)."""
REMEMBERED = 2.0
LEAST_WAIT, WAIT_SHARE = 0.015, 0.125
WAITS, WAITS_AT_START, WAITS_WHILE_QUEUEING = 6, 5, 2
SURELY_LONG = 3
"""A wait that is so many times as long as a long one is a queue, whatever the REPORTs show: they come later."""
QUEUEING, QUEUEING_AT_START, SURELY_QUEUEING = 1.15, 2, 3
"""Bytes are reported for so much longer than they were sent for while a queue grows."""
MUCH_LOSS = 0.05
MOST_FLOOR = 0.3
LOSS_SAMPLES = 8
LEAST_IN_LOSS_SAMPLE = 140_000
LONGEST_PAUSE = 4.0
BURST = 0.02
"""Seconds of the rate that may be sent at once, after the program has had no time to send."""
LEAST_BURST, MOST_BURST = 3000, 1_000_000
LATELY = 3
LIMITED_BY_RATE = 0.8
"""Share of the rate that must have been sent for the result to tell anything about the path."""
LEAST_IN_FLIGHT = 64 * 1024
UNREPORTED = 0.25


class Acknowledged(NamedTuple):
    """What a REPORT shows, in totals since the test began.

    at         when the REPORT came
    sent_at    when its last record was sent
    sent       bytes sent up to that record
    delivered  those of them that arrived
    """

    at: float
    sent_at: float
    sent: int
    delivered: float


class RateControl:
    """Rate of one test in one direction. `is_starting`: whether the path's rate is still unknown."""

    def __init__(self, now: float, round_trip: float = 0.0, known_rate: float = 0.0) -> None:
        """`round_trip`: the shortest one of the idle path, 0 if unknown. `known_rate`: delivered earlier, or 0."""
        self.is_starting = True
        self.rate = max(FIRST_RATE, known_rate / 2)
        self._shortest = round_trip or NEVER
        self._waits: deque[float] = deque(maxlen=WAITS)
        self._acknowledged: deque[Acknowledged] = deque()
        self._delivered: deque[tuple[float, float]] = deque()
        self._losses: deque[float] = deque(maxlen=LOSS_SAMPLES)
        self._loss_since: Acknowledged | None = None
        self._best = 0.0
        self._stalled = 0
        self._was_limited = False
        self._queueing = 0  # samples in a row that show a growing queue
        self._is_draining = False
        self._phase = UP_ROUNDS
        self._before_up = 0.0
        self._up = UP
        self._round_since = now
        self._no_up_until = -NEVER
        self._no_up_pause = 1.0
        self._allowed = float(LEAST_BURST)
        self._allowed_at = now
        self._seen_sent = self._reported_sent = 0

    # What may be sent

    def allowance(self, sent: int, now: float) -> int:
        """Return how many bytes may be sent now. `sent`: bytes sent on the link since the test began, by anybody."""
        most = self._burst
        earned = self.rate * (now - self._allowed_at)
        self._allowed = min(most, self._allowed + earned) - (sent - self._seen_sent)
        self._allowed = max(self._allowed, -most)  # other traffic is not made up for
        self._allowed_at, self._seen_sent = now, sent
        return max(0, int(min(self._allowed, self._most_in_flight - (sent - self._reported_sent))))

    def seconds_until(self, size: int) -> float:
        """Return after which time `size` bytes may be sent, if no REPORT comes."""
        return max(0.0, (min(size, self._burst) - self._allowed) / self.rate)

    @property
    def _most_in_flight(self) -> float:
        return max(LEAST_IN_FLIGHT, self.rate * (self._round + UNREPORTED))

    # What comes back

    def echoed(self, round_trip: float, now: float) -> None:
        """Learn from the round trip of a PROBE."""
        self._shortest = min(self._shortest, round_trip)
        self._waits.append(round_trip - self._shortest)
        if self.is_starting and self._has_filled_a_queue:
            self._end_start(now)
        self._decide(now)

    def reported(self, report: Acknowledged) -> None:
        """Learn from a REPORT."""
        now = report.at
        self._reported_sent = report.sent
        self._acknowledged.append(report)
        former = self._former(report)
        if former is None:
            return
        sent = report.sent - former.sent
        time = max(report.at - former.at, report.sent_at - former.sent_at)
        if sent > 0:
            self._delivered.append((now, (report.delivered - former.delivered) / time))
            sending = report.sent_at - former.sent_at
            self._was_limited = sent / sending >= LIMITED_BY_RATE * self.rate
            self._queueing = self._queueing + 1 if report.at - former.at > QUEUEING * sending else 0
        remembered = max(REMEMBERED, CYCLE * self._round)
        while self._delivered and self._delivered[0][0] < now - remembered:
            self._delivered.popleft()
        self._take_loss(report)
        if self.is_starting:
            self._judge_start(report.sent_at, now)
        self._decide(now)

    def _take_loss(self, report: Acknowledged) -> None:
        since = self._loss_since or report
        sent = report.sent - since.sent
        if sent >= LEAST_IN_LOSS_SAMPLE:
            self._losses.append(max(0.0, 1 - (report.delivered - since.delivered) / sent))
            if self._overflows:
                self._no_up_until = report.at + self._no_up_pause
                self._no_up_pause = min(LONGEST_PAUSE, 2 * self._no_up_pause)
        elif self._loss_since is not None:
            return
        self._loss_since = report

    def _former(self, report: Acknowledged) -> Acknowledged | None:
        """Return the newest report with which this one makes a sample, and forget the older ones."""
        known, found = self._acknowledged, None
        while (
            len(known) > 1
            and report.sent_at - known[0].sent_at >= SHORTEST_SAMPLE
            and report.at - known[0].at >= SHORTEST_SAMPLE
        ):
            found = known.popleft()
        if found is not None:
            known.appendleft(found)
        return found

    def begin_session(self, sent: int) -> None:
        """Begin in a new session: no sample spans two. `sent`: bytes sent before it, of which no REPORT will tell."""
        self._acknowledged.clear()
        self._loss_since = None
        self._reported_sent = sent

    # Decisions

    @property
    def delivered(self) -> float:
        """Bytes a second that the path has delivered lately; 0 if unknown."""
        return max((rate for _, rate in self._delivered), default=0.0)

    @property
    def _delivered_lately(self) -> float:
        """The middle one of the last three samples, any of which may be wrong while a machine is busy."""
        return sorted(rate for _, rate in list(self._delivered)[-LATELY:])[len(self._delivered) >= LATELY]

    def _forget_all_but(self, count: int) -> None:
        while len(self._delivered) > count:
            self._delivered.popleft()

    @property
    def _burst(self) -> float:
        return min(MOST_BURST, max(LEAST_BURST, self.rate * BURST))

    @property
    def _round(self) -> float:
        return REPORT_LAG + (self._shortest if self._shortest < NEVER else REPORT_LAG)

    @property
    def _long_wait(self) -> float:
        return max(LEAST_WAIT, WAIT_SHARE * self._shortest) if self._shortest < NEVER else NEVER

    @property
    def _floor(self) -> float:
        return min(MOST_FLOOR, *self._losses) if len(self._losses) == LOSS_SAMPLES else 0.0

    @property
    def _overflows(self) -> bool:
        return bool(self._losses) and self._losses[-1] > 2 * self._floor + MUCH_LOSS

    @property
    def _has_filled_a_queue(self) -> bool:
        """Whether the start has sent so much that a queue stands."""
        if self._queueing >= QUEUEING_AT_START:
            return self._wait_of(WAITS_WHILE_QUEUEING) > self._long_wait
        return self._wait_of(WAITS_AT_START) > SURELY_LONG * self._long_wait

    def _wait_of(self, count: int) -> float:
        """Return what so many round trips have in common above the shortest one; 0 while there are fewer."""
        return min(list(self._waits)[-count:]) if len(self._waits) >= count else 0.0

    def _judge_start(self, sent_at: float, now: float) -> None:
        """Notice at the end of a round whether more is delivered than before."""
        if sent_at < self._round_since:
            return
        self._round_since = now
        if self.delivered >= GROWTH * self._best:
            self._best, self._stalled = self.delivered, 0
            return
        self._stalled += self._was_limited
        if self._stalled >= ROUNDS_WITHOUT_GROWTH or self._overflows:
            self._end_start(now)

    def _end_start(self, now: float) -> None:
        self.is_starting = False
        self._is_draining = True
        self._phase = CYCLE - 2  # more is tried soon: the start may have ended too early
        self._round_since = now

    def _decide(self, now: float) -> None:
        """Choose the rate from everything known."""
        delivered = self.delivered
        if not delivered:
            return
        if self.is_starting:
            self.rate = max(self.rate, START_GAIN * delivered)
            return
        wait = min(self._waits) if self._waits else 0.0
        if self._queueing >= SURELY_QUEUEING:
            self._is_draining = True
            self._forget_all_but(LATELY)  # the path was faster
            delivered = self.delivered
        elif wait > self._long_wait:
            self._is_draining = True
        elif wait <= self._long_wait / 2:
            self._is_draining = False
        if now - self._round_since >= self._round:
            self._round_since = now
            self._begin_round(delivered)
        if self._is_draining:
            drain = FAST_DRAIN if wait > SURELY_LONG * self._long_wait else DRAIN
            self.rate = max(LEAST_SHARE * delivered, drain * self._delivered_lately)
            return
        gain = 1.0
        if self._phase < UP_ROUNDS and now >= self._no_up_until:
            gain = self._up
        elif self._phase == UP_ROUNDS:
            gain = DOWN
        self.rate = gain * delivered / (1 - self._floor)

    def _begin_round(self, delivered: float) -> None:
        """Begin the next round of the cycle, or the rounds of more again if more was delivered."""
        self._phase = (self._phase + 1) % CYCLE
        if self._phase == UP_ROUNDS:
            has_grown = delivered >= MORE * self._before_up
            self._up = UP_AGAIN if has_grown else UP
            self._phase = 0 if has_grown else UP_ROUNDS
        if self._phase == 0:
            self._before_up = delivered
