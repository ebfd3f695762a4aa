"""How many datagrams a record may take, and how many bytes: one lost datagram loses its record, and a long burst
strains a slow path's queue; but a long record is what makes a fast path fast.

    single       one datagram, or what one packet needs (`smallest`): wherever the path is what limits the link
    long         44 datagrams, where this program limits the link, and not the path (bottleneck.py), and no more than
                 0.05% of the datagrams are lost, for three REPORTs in a row; or for one, where twenty have said so
                 before. Until 0.05% are lost, or any while the program is not the limit; nothing was reported for 1 s
                 while sending; or no record was sent for 1 s
    protected    where datagrams are lost at random (protection.py). If PROBEs come back within 5 ms, records are long
                 then, whatever limits the link, and each burst goes with a parity (wire/burst.py): what a PARITY
                 restores (parity.py) comes so late there that TCP has taken it for lost. On longer paths single
                 records go with PARITYs, and leave room for those, but not while this program is the limit: it would
                 take time that packets need
    at most      0.01 / p datagrams, protected 0.16 / p. p is the smoothed loss of single datagrams, each sample over no
                 fewer than 2,000 of them
    smallest     while bursts don't get through (black_hole.py)
    never        beyond one UDP_SEGMENT send (65,507 bytes), nor beyond 3 ms of the delivered rate where the path delays
                 what it is sent

Losses come from REPORT: of the counters up to the highest it names, those not opened are lost (receive_stats.py gives
late ones their time). A report that shows no burst completed, though some were sent, is not judged: that is a black
hole or an outage, and not loss.

Flow, for the host:
    before a record      if now >= span.deadline: span.handle_deadline(now); then read span.largest_record
    after it             span.sent(counter, datagrams, size, now), if it carries packets; `sent_singles` after several
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

from vpntun.core.records.black_hole import SILENCE, BlackHoleDetector
from vpntun.core.records.bottleneck import Bottleneck
from vpntun.core.records.path_estimator import PathEstimator, ReportSample
from vpntun.core.records.protection import DELAY_HOLDS, Protection
from vpntun.core.records.sent_log import SentLog
from vpntun.types import NEVER
from vpntun.wire.message import HEADER_SIZE, TAG_SIZE
from vpntun.wire.record import LARGEST_RECORD, PARITY_SIZE, Report

MOST = 44
LARGEST_SEND = 65_507

AIM, AIM_PROTECTED = 0.01, 0.16
MOST_LOSS = 0.0005
REPORTS_BEFORE_LONG = 3
REPORTS_OF_A_SECOND = 20

MOST_PROBES = 64

IDLENESS = 1.0
TICK = 0.25

RECORD_TIME = 0.003
LEAST_OF_STREAM = 4096


class Span:
    """The span towards one peer. Attributes for the host to read:

    span              datagrams a record may take
    largest_record    bytes of plaintext a record may take
    vanishing         whether what is sent gets through this path
    deadline          when `handle_deadline` is to be called, before the next record
    measured          the path's rate and loss
    protection        whether datagrams are lost at random, and single records go with PARITYs
    protects_bursts   whether each burst goes with a parity
    reported_sent     datagrams that the peer's REPORTs tell of, in all sessions
    reported_lost     those of them that did not come, PROBEs that tried a length left out
    bottleneck        what the device had and how long the loop slept is added up there (see above)
    """

    def __init__(self, payload: int, smallest: int, now: float) -> None:
        """`payload`: bytes of UDP payload, 0 for a stream. `smallest`: datagrams that one packet needs."""
        self.span = smallest
        self.largest_record = 0
        self.protects_bursts = False
        self.deadline = NEVER
        self.black_hole = BlackHoleDetector()
        self.estimator = PathEstimator(now)
        self.bottleneck = Bottleneck(now)
        self.protection = Protection()
        self.reported_sent = self.reported_lost = 0
        self._payload = payload
        self._smallest = smallest
        self._protectable = smallest == 1 and payload > 0
        self._sent_log = SentLog()
        self._probes: deque[int] = deque(maxlen=MOST_PROBES)
        # this session's
        self._excused = 0
        self._last_sent = now
        self._unreported_since = NEVER
        self._last_told_of = -1
        self._base = ReportSample(now)
        # this path's
        self._is_long = False
        self._busy_reports = 0  # in a row: this program was the bottleneck, and the path lost next to nothing
        self._has_been_long = False  # for a second
        self._follow(now)

    # Sending

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """A record with packets was sent: its counter, in how many datagrams, of how many bytes."""
        self._note_sent(counter, now)
        self._sent_log.sent(counter, datagrams, size, now)
        self.black_hole.sent(datagrams, size, now)

    def sent_singles(self, first: int, count: int, each: int, size: int, now: float) -> None:
        """So many records with packets were sent from the counter `first` on, each in one datagram.

        `each`: bytes of all but the last, which may be shorter; `size`: bytes of all together.
        """
        self._note_sent(first + count - 1, now)
        self._sent_log.sent_singles(first, count, each, size, now)
        self.black_hole.sent(1, each, now)

    def _note_sent(self, counter: int, now: float) -> None:
        if now - self._last_sent >= IDLENESS:
            self.bottleneck.rested(self._sent_log.next, now)
        self._last_sent = now
        self._last_told_of = counter
        if self._unreported_since == NEVER:
            self._unreported_since = now
            if self.deadline == NEVER:
                self.deadline = now + TICK

    def probed(self, counter: int) -> None:
        """A padded PROBE was sent with this counter: if it is lost, that says nothing."""
        self._probes.append(counter)

    def length_passes(self, now: float) -> None:
        """What seems to vanish does not do so for its length."""
        self.black_hole.length_passes(now)
        self._follow(now)

    # Time

    def handle_deadline(self, now: float) -> None:
        """What time alone decides: idleness, silence, bursts that don't get through."""
        self.deadline = now + TICK
        idle = now - self._last_sent >= IDLENESS
        if self.black_hole.handle_deadline(now, idle=idle):
            self._give_up_long()
        elif idle:  # what was sent before may be unproven: a flow that backs off sends ever more seldom
            self._unreported_since = NEVER
            self.estimator.idle()
            self._is_long = False
            self._busy_reports = 0
            self.deadline = NEVER
        elif now - self._unreported_since >= SILENCE:
            self._unreported_since = now
            self._give_up_long()
        self._follow(now)

    # Reports

    def reported(self, report: Report, counters: int, now: float) -> None:
        """The peer's REPORT, in the session that is sealed with, of which so many counters have been used.

        One that can't be, or was overtaken by a later, is ignored.
        """
        highest, opened = report.highest, report.opened
        base, sent_log = self._base, self._sent_log
        if not (base.highest <= highest < counters and base.opened < opened <= highest + 1):
            return
        sent_log.fill(highest + 1, now)  # and no further: records that wait in a batch have counters, too
        self._unreported_since = NEVER if highest >= self._last_told_of else now
        self.bottleneck.measure(sent_log.next, report.busy, now)
        if not sent_log.knows(highest):
            return
        sent = sent_log.datagrams_to(highest)
        while self._probes and self._probes[0] <= highest:
            self._probes.popleft()
            self._excused += 1
        lost = highest + 1 - opened - self._excused
        missing = sent - report.datagrams - self._excused
        judged = self.black_hole.reported(base, highest, opened, sent_log)
        self.reported_sent += sent - base.sent
        self.reported_lost += missing - base.missing
        mark = self._base = ReportSample(now, highest, opened, lost, sent, missing, sent_log.bytes_to(highest), judged)
        if base.highest >= 0:
            self.estimator.take(base, mark, sent_log, now)
            if judged:
                delayed = now - self.estimator.delay.seen_at < DELAY_HOLDS
                self.protection.learn(mark.sent - base.sent, mark.missing - base.missing, delayed=delayed)
            self._judge(base, mark)
        sent_log.forget_below(highest - 1)
        self._follow(now)

    # What else happens

    def new_session(self, now: float) -> None:
        """Counters and totals begin anew; what was learned of the path stays."""
        self._sent_log.begin()
        self._excused = 0
        self._probes.clear()
        self._last_sent = now
        self._unreported_since = NEVER
        self.black_hole.begin()
        self._last_told_of = -1
        self._base = ReportSample(now)
        self.estimator.begin(now)
        self.deadline = now + TICK

    def moved(self, now: float) -> None:
        """Another path: nothing is known of it."""
        self.estimator.moved(self._sent_log.next)
        self.black_hole.moved()
        self.protection.moved()
        self._give_up_long()
        self._follow(now)

    def path(self, payload: int, smallest: int, now: float, *, protectable: bool = True) -> None:
        """The path takes this much UDP payload (0: a stream), and one packet needs so many datagrams.

        `protectable`: a parity of any packet would fit in one datagram.
        """
        self._protectable = protectable and smallest == 1 and payload > 0
        if payload != self._payload:
            self._payload = payload
            self.black_hole.length_changed()
            self.estimator.length_changed(self._sent_log.next)
        self._smallest = smallest
        self._follow(now)

    # Inside

    def _judge(self, base: ReportSample, mark: ReportSample) -> None:
        """Decide whether this program has been what limits the link for long enough to send long records."""
        if not mark.judged or not self._payload:
            return
        lost, is_here = mark.missing - base.missing, self.bottleneck.is_here
        if self.estimator.loss > MOST_LOSS or (lost > 0 and not is_here):
            self._give_up_long()
        elif is_here and lost <= MOST_LOSS * (mark.sent - base.sent):
            self._busy_reports += 1
            self._is_long |= self._busy_reports >= REPORTS_BEFORE_LONG or self._has_been_long
            self._has_been_long |= self._busy_reports >= REPORTS_OF_A_SECOND
        else:
            self._busy_reports = 0

    def _give_up_long(self) -> None:
        self._is_long = self._has_been_long = False
        self._busy_reports = 0

    def _follow(self, now: float) -> None:
        """Decide by all that is known how long records may be, and how they are protected."""
        protected = self._protected_span() if self.black_hole.passes else 1
        self.protects_bursts = protected > 1
        room = self.estimator.has_room(now) and not self.bottleneck.is_here
        self.protection.decide(self._protectable and not self._is_long and not self.protects_bursts and room)
        if self.protects_bursts:
            span = protected
        else:
            span = self._most(AIM) if self._is_long and self.black_hole.passes else 1
        self.span = max(self._smallest, span)
        if self._payload:
            step = self._payload - HEADER_SIZE
            least = self._smallest * step - TAG_SIZE - PARITY_SIZE * self.protection.active
            largest = max(least, self.span * step - TAG_SIZE) if self.span > 1 else least
        else:
            least, largest = LEAST_OF_STREAM, LARGEST_RECORD
        if rate := self.estimator.path_rate(now):
            largest = max(least, min(largest, int(RECORD_TIME * rate)))
        self.largest_record = min(largest, LARGEST_RECORD)

    def _protected_span(self) -> int:
        """Datagrams of a protected burst without its parity; 1 or less where none is sent."""
        if not self._payload or not self.estimator.delay.is_short or not self.protection.loses_at_random:
            return 1
        return min(self._most(AIM_PROTECTED), LARGEST_SEND // self._payload - 1)

    def _most(self, aim: float) -> int:
        """Datagrams of the longest record that loss, and one send, allow."""
        most = min(MOST, LARGEST_SEND // self._payload) if self._payload else MOST
        loss = self.estimator.loss
        return min(most, int(aim / loss)) if loss else most
