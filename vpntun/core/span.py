"""How many datagrams a record may take, and how many bytes: one lost datagram loses its record, and a long burst
strains a slow path's queue; but a long record is what makes a fast path fast.

    begins at            4 datagrams
    doubles, up to 44    under 0.5% of records lost; and the device has more waiting than a record holds, and the loop
                         hardly sleeps: then this program is the bottleneck, and not the path. 44 at once until it was
                         halved for the first time, on this path and since it was idle: short loads are the most
    halves               over 2% of records lost; or nothing was reported for 1 s while sending
    at most 0.01 / p     p is the smoothed loss of single datagrams, each sample over no fewer than 2,000; 0.16 / p
                         while bursts are protected (protection.py)
    16                   as soon as they are, and 4 when they are not any more
    back to 4, or 16     after 1 s without a record
    smallest             no burst was completed within 1 s of the session's first, or bursts vanish while a datagram of
                         their length is echoed: a middlebox drops what it does not know. Tried again after 5 s,
                         doubling to 10 min
    no less than 4       while the loop hardly sleeps, whatever is lost: then records cost more than losses; or while
                         protection is wanted, room or not
    never                below what one packet needs (`smallest`), beyond one UDP_SEGMENT send (65,507 bytes), nor
                         beyond 3 ms of the delivered rate where the path delays what it is sent

Losses come from REPORT: of the counters up to the highest it names, those not opened are lost (meter.py gives late ones
their time). Only records sent since the span last changed are judged (measured.py). A report that shows no burst
completed, though some were sent, is not judged: that is a black hole or an outage, and not loss (see `vanishing`).

Flow, for the host:
    before a record      if now >= span.deadline: span.handle_deadline(now); then read span.largest_record
    after it             span.sent(counter, datagrams, size, now), if it carries packets
                         span.bottleneck.backlogged += 1, if the device had another packet
    after select         span.bottleneck.slept += seconds waited
    a padded PROBE       span.probed(counter), since it will probably be lost
    REPORT               span.reported(report, session.send_counter, now), if it came in the session that is sealed with
    new session          span.new_session(now)
    path MTU, carrier    span.path(payload, smallest, now)
    endpoint moved       span.moved(now)

Sizes are bytes, times seconds of the caller's clock. Source: the design, "Records between two vpntuns" (Span).
"""

from __future__ import annotations

from collections import deque

from vpntun.core.bottleneck import Bottleneck
from vpntun.core.ledger import Ledger
from vpntun.core.measured import Mark, Measured, RecordLoss
from vpntun.core.protection import Protection
from vpntun.core.timers import NEVER
from vpntun.wire.burst import FILLING_SIZE
from vpntun.wire.message import HEADER_SIZE, TAG_SIZE
from vpntun.wire.record import LARGEST_RECORD, Report

FIRST = 4
MOST = 44
LEAST_WHEN_BUSY = 4
LARGEST_SEND = 65_507

GROWTH = 2
FIRST_GROWTH = MOST
HALVE_OVER = 0.02
GROW_UNDER = 0.005
AIM = 0.01
AIM_PROTECTED = 0.16
FIRST_PROTECTED = 16

MOST_PROBES = 64

SILENCE = 1.0
IDLENESS = 1.0
FIRST_RETRY = 5.0
LAST_RETRY = 600.0
TICK = 0.25

RECORD_TIME = 0.003
LEAST_OF_STREAM = 4096


class Span:
    """The span towards one peer. Attributes for the host to read:

    span              datagrams a record may take
    largest_record    bytes of plaintext a record may take
    passes            False: bursts don't get through this path
    deadline          when `handle_deadline` is to be called, before the next record
    measured          the path's rate and loss
    protection        whether bursts go with a parity
    bottleneck        what the device had and how long the loop slept is added up there (see above)
    """

    def __init__(self, payload: int, smallest: int, now: float) -> None:
        """`payload`: bytes of UDP payload, 0 for a stream. `smallest`: datagrams that one packet needs."""
        self.span = FIRST
        self.largest_record = 0
        self.passes = True
        self.deadline = NEVER
        self.measured = Measured(now)
        self.bottleneck = Bottleneck(now)
        self.protection = Protection()
        self._payload = payload
        self._smallest = smallest
        self._ledger = Ledger()
        self._probes: deque[int] = deque(maxlen=MOST_PROBES)
        # this session's
        self._excused = 0
        self._last_sent = now
        self._unreported_since = NEVER
        self._unproven_since = NEVER
        self._proven = False
        self._last_told_of = -1
        self._base = Mark(now)
        # this span's
        self._record_loss = RecordLoss()
        # this path's
        self._growth = FIRST_GROWTH
        self._retry_at = NEVER
        self._retry_pause = FIRST_RETRY
        self._bound(now)

    # Sending

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """A record with packets was sent: its counter, in how many datagrams, of how many bytes."""
        if now - self._last_sent >= IDLENESS:
            self.bottleneck.rested(self._ledger.next, now)
        self._ledger.sent(counter, datagrams, size, now)
        self._last_sent = now
        self._last_told_of = counter
        if self._unreported_since == NEVER:
            self._unreported_since = now
            if self.deadline == NEVER:
                self.deadline = now + TICK
        if datagrams > 1 and self._unproven_since == NEVER:
            self._unproven_since = now

    def probed(self, counter: int) -> None:
        """A padded PROBE was sent with this counter: if it is lost, that says nothing."""
        self._probes.append(counter)

    def vanishing(self, now: float) -> bool:
        """Whether bursts are sent and none was completed for a second: a black hole, if small messages get through."""
        return now - self._unproven_since >= SILENCE

    def blocked(self, now: float) -> None:
        """Bursts don't get through, though single datagrams of their length do. Tried again later."""
        self.passes = False
        self._proven = False
        self._unproven_since = NEVER
        self._retry_at = now + self._retry_pause
        self._retry_pause = min(LAST_RETRY, 2 * self._retry_pause)
        self._set(self._smallest, now)

    # Time

    def handle_deadline(self, now: float) -> None:
        """What time alone decides: idleness, silence, bursts that don't get through."""
        self.deadline = now + TICK
        idle = now - self._last_sent >= IDLENESS
        if self.passes and not self._proven and not idle and self.vanishing(now):
            self.blocked(now)
        elif not self.passes and now >= self._retry_at:
            self.passes = True
            self._unproven_since = NEVER
            self._set(FIRST, now)
        elif idle:  # what was sent before may be unproven: a flow that backs off sends ever more seldom
            self._unreported_since = NEVER
            self.measured.idle()
            self._growth = FIRST_GROWTH
            self._set(self._first, now)
            self.deadline = NEVER
        elif now - self._unreported_since >= SILENCE:
            self._unreported_since = now
            self._halve(now)
        self._bound(now)

    # Reports

    def reported(self, report: Report, counters: int, now: float) -> None:
        """The peer's REPORT, in the session that is sealed with, of which so many counters have been used.

        One that can't be, or was overtaken by a later, is ignored.
        """
        highest, opened = report.highest, report.opened
        base, ledger = self._base, self._ledger
        ledger.fill(counters, now)
        if not (base.highest <= highest < ledger.next and base.opened < opened <= highest + 1):
            return
        self._unreported_since = NEVER if highest >= self._last_told_of else now
        self.bottleneck.measure(ledger.next, now)
        self._set(self.span, now)
        if not ledger.knows(highest):
            return
        sent = ledger.datagrams_to(highest)
        while self._probes and self._probes[0] <= highest:
            self._probes.popleft()
            self._excused += 1
        lost = highest + 1 - opened - self._excused
        missing = sent - report.datagrams - self._excused
        judged = self._shows_a_burst(highest, opened)
        mark = self._base = Mark(now, highest, opened, lost, sent, missing, ledger.bytes_to(highest), judged)
        if base.highest >= 0:
            if self.measured.take(base, mark, ledger, now):
                self._set(self.span, now)
            self._protect(base, mark, now)
            self._judge(base, mark, now)
        self._bound(now)

    # What else happens

    def new_session(self, now: float) -> None:
        """Counters and totals begin anew; what was learned of the path stays."""
        self._ledger.begin()
        self._excused = 0
        self._probes.clear()
        self._last_sent = now
        self._unreported_since = self._unproven_since = NEVER
        self._proven = False
        self._last_told_of = -1
        self._base = Mark(now)
        self.measured.begin(now)
        self.deadline = now + TICK
        self._record_loss.begin(self._ledger.next)

    def moved(self, now: float) -> None:
        """Another path: nothing is known of it."""
        self.passes = True
        self.measured.moved(self._ledger.next)
        self._unproven_since = NEVER
        self._proven = False
        self._retry_at = NEVER
        self._retry_pause = FIRST_RETRY
        self._growth = FIRST_GROWTH
        self.protection.moved()
        self._record_loss.begin(self._ledger.next)
        self._set(FIRST, now)

    def path(self, payload: int, smallest: int, now: float) -> None:
        """The path takes this much UDP payload (0: a stream), and one packet needs so many datagrams."""
        if payload != self._payload:
            self._payload = payload
            self.protection.decide(room=False)  # until the next report
            self._unproven_since = NEVER
            self.measured.length_changed(self._ledger.next)
            self._record_loss.begin(self._ledger.next)
        self._smallest = smallest
        self._set(self.span, now)

    # Inside

    def _shows_a_burst(self, highest: int, opened: int) -> bool:
        """Whether this report shows a burst completed since the last one; true as well where none was sent."""
        base, ledger = self._base, self._ledger
        counters = highest - base.highest
        if self._unproven_since == NEVER or ledger.datagrams_to(highest) - base.sent == counters > 0:
            return True
        if not counters:
            return False
        former = ledger.datagrams_to(highest - 1) if highest else 0
        highest_was_single = ledger.datagrams_to(highest) - former == 1
        if highest_was_single and opened - base.opened <= ledger.singles(base.highest, highest):
            return False
        self._proven = self.passes = True
        self._retry_pause = FIRST_RETRY
        self._unproven_since = NEVER
        return True

    def _judge(self, base: Mark, mark: Mark, now: float) -> None:
        """Weigh the records lost between two reports, and act on it."""
        loss = self._record_loss.take(base, mark)
        if loss is None or not self._payload:
            return
        if loss > HALVE_OVER:
            self._halve(now)
        elif loss < GROW_UNDER and self.bottleneck.is_here:
            self._set(self._growth * self.span, now)

    def _protect(self, base: Mark, mark: Mark, now: float) -> None:
        """Learn what is lost at random, and follow."""
        measured, protection = self.measured, self.protection
        if mark.judged and not measured.path_rate(now):
            protection.learn(mark.sent - base.sent, mark.missing - base.missing)
        room = self.bottleneck.is_busy or measured.has_room(now)
        fits = 0 < self._payload * (self._smallest + 2) <= LARGEST_SEND  # a packet, a filling and a parity
        if protection.decide(room and self.passes and fits):
            self._set(self._first, now)

    @property
    def _first(self) -> int:
        return FIRST_PROTECTED if self.protection.active else FIRST

    def _halve(self, now: float) -> None:
        self._growth = GROWTH
        self._set(self.span // 2, now)

    def _set(self, span: int, now: float) -> None:
        """Take this span, or the nearest that is allowed."""
        protection, protected = self.protection, self.protection.active
        most = sendable = min(MOST, LARGEST_SEND // self._payload - protected) if self._payload else MOST
        if loss := self.measured.loss:
            most = min(most, int((AIM_PROTECTED if protected else AIM) / loss))
        if not self.passes:
            most = self._smallest
        least = self._smallest
        if self.passes and (self.bottleneck.is_busy or (protection.possible and protection.wanted)):
            least = max(least, min(LEAST_WHEN_BUSY, sendable))
        span = max(least, min(span, most))
        if span != self.span:
            self.span = span
            self._record_loss.begin(self._ledger.next)
        self._bound(now)

    def _bound(self, now: float) -> None:
        """Make `largest_record` of the span and the rate."""
        if self._payload:
            step = self._payload - HEADER_SIZE
            least = self._smallest * step - TAG_SIZE
            largest = max(least, self.span * step - TAG_SIZE - FILLING_SIZE * self.protection.active)
        else:
            least, largest = LEAST_OF_STREAM, LARGEST_RECORD
        if rate := self.measured.path_rate(now):
            largest = max(least, min(largest, int(RECORD_TIME * rate)))
        self.largest_record = min(largest, LARGEST_RECORD)
