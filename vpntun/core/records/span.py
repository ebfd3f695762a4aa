"""Span of a record, the number of datagrams that it may take, and its length in bytes.

A long record makes a fast path fast. But one lost datagram loses its whole record, and a long burst strains a slow
path's queue.

    single       one datagram: while the path limits the link. A packet that does not fit in one gets a record of its
                 own, in as many as it needs (`RecordProtocol.room_for`)
    long         45 datagrams, or as many as one send takes (65,469 bytes). This begins once this program limits the
                 link rather than the path (bottleneck.py) and no more than 0.05% of the datagrams are lost, for three
                 REPORTs in a row, or for one if records were long for twenty before, or PROBEs come back within 5 ms.
                 It ends when over 0.05% are lost, or any while the program is not the limit; when nothing was reported
                 for 1 s while sending; or when no record was sent for 1 s, unless they were long for twenty REPORTs and
                 the path did not delay them
    protected    while datagrams are lost at random (protection.py). If PROBEs come back within 5 ms, records are long
                 whatever limits the link, and each burst is sent with a parity (wire/burst.py): on such a path, a
                 record restored by a PARITY (parity.py) comes so late that TCP has taken it for lost. On longer paths,
                 single records are sent with PARITYs and leave room for those, but not while this program is the limit:
                 they would take time that packets need
    at most      0.01 / p datagrams, protected 0.16 / p. p is the smoothed loss of single datagrams, each sample over at
                 least 2,000 of them
    single too   while bursts don't get through (black_hole.py)
    never        longer than one UDP_SEGMENT send (65,469 bytes), nor than 3 ms of the delivered rate while the path
                 delays packets

Losses come from REPORTs: of the counters up to the highest one named, those not opened are lost (receive_stats.py
allows for late ones). If a report shows no burst completed though some were sent, its losses do not count: that is a
black hole or an outage, not loss.

Calls by the record protocol:
    before a record      if now >= span.deadline: span.handle_deadline(now); then read span.largest_record
    after it             span.sent(counter, datagrams, size, now), if it carries packets; `sent_singles` after several
                         span.bottleneck.backlogged += 1, if the device had another packet
    after select         span.bottleneck.slept += seconds waited
    a padded PROBE       span.probed(counter), since it will probably be lost
    REPORT               span.reported(report, session.send_counter, now), if it came in the session used for sealing
    new session          span.new_session(now)
    path MTU, carrier    span.path(payload, now)
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

MOST = 45
LARGEST_SEND = 65_469
"""Bytes that one UDP_SEGMENT send may have. With headers of IPv6, Ethernet and a VLAN, longer ones reach 65,536 bytes,
and the kernel itself cuts them into datagrams, which is slow (gso_features_check in net/core/dev.c)."""

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
    """The span towards one peer. Attributes to read:

    span              number of datagrams that a record may take
    largest_record    bytes of plaintext that a record may have
    black_hole        whether bursts and long datagrams get through this path
    deadline          when to call `handle_deadline`, before the next record
    estimator         the path's rate, delay and loss
    protection        whether datagrams are lost at random, and single records are sent with PARITYs
    protects_bursts   whether each burst is sent with a parity
    reported_sent     datagrams covered by the peer's REPORTs, in all sessions
    reported_lost     those of them that did not come, except PROBEs that tested a length
    bottleneck        sums of waiting packets and of the loop's sleep (see above)
    sent_log          the records of this session; its `bytes` are those of records with packets
    last_report       what the last REPORT of this session showed; `highest` is -1 if there was none
    """

    def __init__(self, payload: int, now: float) -> None:
        """`payload`: bytes of UDP payload, 0 for a stream."""
        self.span = 1
        self.largest_record = 0
        self.protects_bursts = False
        self.deadline = NEVER
        self.black_hole = BlackHoleDetector()
        self.estimator = PathEstimator(now)
        self.bottleneck = Bottleneck(now)
        self.protection = Protection()
        self.reported_sent = self.reported_lost = 0
        self._payload = payload
        self._protectable = payload > 0
        self.sent_log = SentLog()
        self._probes: deque[int] = deque(maxlen=MOST_PROBES)
        # about this session
        self._lost_probes = 0
        self._last_sent = now
        self._unreported_since = NEVER
        self._last_noted = -1
        self.last_report = ReportSample(now)
        # about this path
        self._is_long = False
        self._busy_reports = 0  # consecutive ones: this program was the bottleneck, and the path lost next to nothing
        self._long_reports = 0  # in which long records got through
        self._has_been_long = False  # for about a second
        self._follow(now)

    # Sending

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """Note that a record with packets was sent. `datagrams`: their number; `size`: bytes of the message."""
        self._note_sent(counter, now)
        self.sent_log.sent(counter, datagrams, size, now)
        self.black_hole.sent(datagrams, size, now)

    def sent_singles(self, first: int, count: int, each: int, size: int, now: float) -> None:
        """Note that `count` records with packets were sent from the counter `first` on, each in one datagram.

        `each`: bytes of all but the last, which may be shorter; `size`: bytes of all together.
        """
        self._note_sent(first + count - 1, now)
        self.sent_log.sent_singles(first, count, each, size, now)
        self.black_hole.sent(1, each, now)

    def _note_sent(self, counter: int, now: float) -> None:
        if now - self._last_sent >= IDLENESS:
            self.bottleneck.rested(self.sent_log.next, now)
        self._last_sent = now
        self._last_noted = counter
        if self._unreported_since == NEVER:
            self._unreported_since = now
            if self.deadline == NEVER:
                self.deadline = now + TICK

    def probed(self, counter: int) -> None:
        """Note that a padded PROBE was sent with this counter: its loss does not count."""
        self._probes.append(counter)

    def length_passes(self, now: float, *, probe_vanished: bool = False) -> None:
        """Conclude that records which seem to vanish do so for another reason than their length.

        `probe_vanished`: a PROBE that was sent as a burst was not echoed.
        """
        self.black_hole.length_passes(now, probe_vanished=probe_vanished)
        if not self.black_hole.passes:
            self._give_up_long()
        self._follow(now)

    # Time

    def handle_deadline(self, now: float) -> None:
        """Apply the passing of time: idleness, silence."""
        self.deadline = now + TICK
        if now - self._last_sent >= IDLENESS:
            # Earlier records may be unreported: a flow that backs off sends more and more rarely.
            self._unreported_since = NEVER
            was_delayed = self._last_sent - self.estimator.delay.seen_at < DELAY_HOLDS
            self._is_long &= self._has_been_long and not was_delayed
            self.estimator.idle()
            self._busy_reports = 0
            self.deadline = NEVER
        elif now - self._unreported_since >= SILENCE:
            self._unreported_since = now
            self._give_up_long()
        self._follow(now)

    # Reports

    def reported(self, report: Report, counters: int, now: float) -> bool:
        """Learn from the peer's REPORT. `counters`: number of counters used so far in the session used for sealing.

        An impossible REPORT, or one that a later REPORT has overtaken, is ignored, and the result is False.
        """
        highest, opened = report.highest, report.opened
        previous, sent_log = self.last_report, self.sent_log
        if not (previous.highest <= highest < counters and previous.opened < opened <= highest + 1):
            return False
        sent_log.fill(highest + 1, now)  # no further: records that wait in a batch have counters, too
        self._unreported_since = NEVER if highest >= self._last_noted else now
        self.bottleneck.measure(sent_log.next, report.busy, now)
        if not sent_log.knows(highest):
            return True
        sent = sent_log.datagrams_to(highest)
        while self._probes and self._probes[0] <= highest:
            self._probes.popleft()
            self._lost_probes += 1
        lost = highest + 1 - opened - self._lost_probes
        missing = sent - report.datagrams - self._lost_probes
        judged = self.black_hole.reported(previous, highest, opened, sent_log)
        self.reported_sent += sent - previous.sent
        self.reported_lost += missing - previous.missing
        sample = self.last_report = ReportSample(
            now, highest, opened, lost, sent, missing, sent_log.bytes_to(highest), judged, sent_log.time_of(highest)
        )
        if previous.highest >= 0:
            self.estimator.take(previous, sample, sent_log, now)
            if judged:
                delayed = now - self.estimator.delay.seen_at < DELAY_HOLDS
                self.protection.learn(sample.sent - previous.sent, sample.missing - previous.missing, delayed=delayed)
            self._judge(previous, sample)
        sent_log.forget_below(highest - 1)
        self._follow(now)
        return True

    # Sessions and paths

    def new_session(self, now: float) -> None:
        """Start counters and totals at zero; keep what was learned about the path."""
        self.sent_log.begin()
        self._lost_probes = 0
        self._probes.clear()
        self._last_sent = now
        self._unreported_since = NEVER
        self.black_hole.begin()
        self._last_noted = -1
        self.last_report = ReportSample(now)
        self.estimator.begin(now)
        self.deadline = now + TICK

    def moved(self, now: float) -> None:
        """Forget what was learned: it is another path."""
        self.estimator.moved(self.sent_log.next)
        self.black_hole.moved()
        self.protection.moved()
        self._give_up_long()
        self._follow(now)

    def path(self, payload: int, now: float, *, protectable: bool = True) -> None:
        """Adapt to the path. `payload`: bytes of UDP payload that it takes, 0 for a stream.

        `protectable`: whether records of that size may have PARITYs.
        """
        self._protectable = protectable and payload > 0
        if payload < self._payload:
            self.black_hole.begin()
        if payload != self._payload:
            self._payload = payload
            self.estimator.length_changed(self.sent_log.next)
        self._follow(now)

    # Inside

    def _judge(self, previous: ReportSample, sample: ReportSample) -> None:
        """Decide whether this program has limited the link for long enough to send long records."""
        if not sample.judged or not self._payload:
            return
        lost, is_here = sample.missing - previous.missing, self.bottleneck.is_here
        if self.estimator.loss > MOST_LOSS or (lost > 0 and not is_here):
            self._give_up_long()
            return
        is_busy = is_here and lost <= MOST_LOSS * (sample.sent - previous.sent)
        self._busy_reports = self._busy_reports + 1 if is_busy else 0
        enough = 1 if self._has_been_long or self.estimator.delay.is_short else REPORTS_BEFORE_LONG
        self._is_long |= self._busy_reports >= enough
        self._long_reports += self._is_long
        self._has_been_long |= self._long_reports >= REPORTS_OF_A_SECOND

    def _give_up_long(self) -> None:
        self._is_long = self._has_been_long = False
        self._busy_reports = self._long_reports = 0

    def _follow(self, now: float) -> None:
        """Decide from everything known how long records may be, and how they are protected."""
        protected = self._protected_span() if self.black_hole.passes else 1
        self.protects_bursts = protected > 1
        room = self.estimator.has_room(now) and not self.bottleneck.is_here
        self.protection.decide(self._protectable and not self._is_long and not self.protects_bursts and room)
        if self.protects_bursts:
            span = protected
        else:
            span = self._most(AIM) if self._is_long and self.black_hole.passes else 1
        self.span = max(1, span)
        if self._payload:
            step = self._payload - HEADER_SIZE
            least = step - TAG_SIZE - PARITY_SIZE * self.protection.active
            largest = min(self.span * step, LARGEST_SEND - self.span * HEADER_SIZE) - TAG_SIZE
            largest = max(least, largest) if self.span > 1 else least
        else:
            least, largest = LEAST_OF_STREAM, LARGEST_RECORD
        if rate := self.estimator.path_rate(now):
            largest = max(least, min(largest, int(RECORD_TIME * rate)))
        self.largest_record = min(largest, LARGEST_RECORD)

    def _protected_span(self) -> int:
        """Datagrams of a protected burst without its parity; 1 or less if none is sent."""
        if not self._payload or not self.estimator.delay.is_short or not self.protection.loses_at_random:
            return 1
        return min(self._most(AIM_PROTECTED), LARGEST_SEND // self._payload - 1)

    def _most(self, aim: float) -> int:
        """Datagrams of the longest record that loss and the size of one send allow."""
        most = min(MOST, -(-LARGEST_SEND // self._payload)) if self._payload else MOST
        loss = self.estimator.loss
        return min(most, int(aim / loss)) if loss else most
