"""The model's tunnels: one that sends as the program does, and a plain one to compare it with."""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from math import inf

from tests.core.records.model.flow import Flow
from tests.core.records.model.line import (
    OUTER_HEADERS,
    PACKET_HEADERS,
    PAYLOAD,
    RECORD,
    SEGMENT,
    Clock,
    Path,
)
from vpntun.core.records.parity import ParityMaker, Restorer
from vpntun.core.records.receive_stats import ReceiveStats
from vpntun.core.records.span import Span
from vpntun.crypto.replay import ReplayWindow
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE
from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE, Parity, Report

_PLAINTEXT = struct.Struct("!IQ")


@dataclass(frozen=True)
class Processor:
    """Seconds of processor time per record and per datagram at the sender."""

    record: float = 10e-6
    datagram: float = 1e-6


class PlainTunnel:
    """A tunnel that sends each segment in one datagram, and nothing else."""

    def __init__(self, clock: Clock, path: Path, processor: Processor) -> None:
        self.path = path
        self.datagrams = 0
        self._clock = clock
        self._processor = processor
        self._flows: list[Flow] = []
        self._device: deque[tuple[int, int, int]] = deque()
        self._busy = False

    def join(self, flow: Flow) -> int:
        """Add a flow, and return its index."""
        self._flows.append(flow)
        return len(self._flows) - 1

    def write(self, flow: int, first: int, count: int) -> None:
        """Queue consecutive segments of a flow at the device."""
        self._device.append((flow, first, count))
        if not self._busy:
            self._busy = True
            self._woke()
            self._work()

    def _woke(self) -> None:
        pass

    def _work(self) -> None:
        """Take a superpacket from the device, and send it when the processor has finished with it."""
        flow, first, count = self._device.popleft()
        cost = self._processor
        self._clock.at(
            self._clock.now + count * (cost.record + cost.datagram), self._leave_singly, (flow, first, count)
        )

    def _next_turn(self) -> None:
        if self._device:
            self._work()
        else:
            self._busy = False

    def _leave_singly(self, segments: tuple[int, int, int]) -> None:
        flow, first, count = segments
        arrived = self._flows[flow].arrived
        for number in range(first, first + count):
            self.datagrams += 1
            if at := self.path.offer(RECORD + DATA_OVERHEAD + OUTER_HEADERS):
                self._clock.at(at, arrived, (number,))
        self._next_turn()


class Tunnel(PlainTunnel):
    """A tunnel that sends and receives records as the program does. Attributes to read:

    bursts            number of records sent in several datagrams
    parities          send time of each PARITY record
    restored          number of records restored from parities
    spans             (time, span) after each REPORT
    """

    def __init__(self, clock: Clock, path: Path, processor: Processor) -> None:
        super().__init__(clock, path, processor)
        self.bursts = 0
        self.parities: list[float] = []
        self.restored = 0
        self.spans: list[tuple[float, int]] = []
        self.span = Span(PAYLOAD, clock.now)
        self.span.protection.possible = True
        self.span.estimator.delay.note_probe(2 * path.delay, clock.now)  # the search for the path's MTU
        self.span.path(PAYLOAD, clock.now)
        self._counter = 0
        self._parity_maker = ParityMaker()
        self._slept_since = clock.now
        self._receive_stats = ReceiveStats()
        self._restorer = Restorer()
        self._replay = ReplayWindow()
        self._reporting = False

    # Sending

    def _woke(self) -> None:
        self.span.bottleneck.slept += self._clock.now - self._slept_since

    def _work(self) -> None:
        now, span = self._clock.now, self.span
        if now >= span.deadline:
            span.handle_deadline(now)
        most = (span.largest_record - BUNDLE_START - ENTRY_SIZE - PACKET_HEADERS) // SEGMENT
        if most <= 1:
            super()._work()
            return
        segments: list[tuple[int, int, int]] = []
        size, room = BUNDLE_START, span.largest_record
        while self._device:
            flow, first, count = self._device[0]
            fitting = min(count, (room - size - ENTRY_SIZE - PACKET_HEADERS) // SEGMENT)
            if fitting <= 0:
                break
            self._device.popleft()
            segments.append((flow, first, fitting))
            size += ENTRY_SIZE + PACKET_HEADERS + fitting * SEGMENT
            if fitting < count:
                self._device.appendleft((flow, first + fitting, count - fitting))
                break
        datagrams = datagrams_for(size + DATA_OVERHEAD, PAYLOAD)
        cost = self._processor.record + datagrams * self._processor.datagram
        self._clock.at(now + cost, self._leave_together, (segments, size, datagrams))

    def _next_turn(self) -> None:
        if not self._device:
            self._slept_since = self._clock.now
        super()._next_turn()

    def _leave_singly(self, segments: tuple[int, int, int]) -> None:
        flow, first, count = segments
        span, now, at, offer = self.span, self._clock.now, self._clock.at, self.path.offer
        protection = span.protection
        counter = first_counter = self._counter
        size = RECORD + DATA_OVERHEAD
        sent = 0
        for number in range(first, first + count):
            sent += size
            if time := offer(size + OUTER_HEADERS):
                at(time, self._single_arrived, (counter, flow, number))
            counter += 1
            if protection.active:
                plaintext = memoryview(_PLAINTEXT.pack(flow, number))
                if parity := self._parity_maker.add(counter - 1, plaintext, protection.group):
                    whole = len(parity) - len(plaintext) + RECORD + DATA_OVERHEAD
                    sent += whole
                    self.parities.append(now)
                    if time := offer(whole + OUTER_HEADERS):
                        at(time, self._parity_arrived, (counter, parity))
                    counter += 1
        self._counter = counter
        self.datagrams += counter - first_counter
        span.sent_singles(first_counter, counter - first_counter, size, sent, now)
        if self._device:
            span.bottleneck.backlogged += count
        self._next_turn()

    def _leave_together(self, record: tuple[list[tuple[int, int, int]], int, int]) -> None:
        segments, size, datagrams = record
        message = size + DATA_OVERHEAD
        counter = self._counter
        self._counter += 1
        self.datagrams += datagrams
        self.bursts += datagrams > 1
        whole = message + (datagrams - 1) * HEADER_SIZE
        arrived, time = 0, 0.0
        for index in range(datagrams):
            piece = min(PAYLOAD, whole - index * PAYLOAD)
            if last := self.path.offer(piece + OUTER_HEADERS):
                arrived += 1
                time = last
        if arrived == datagrams:
            self._clock.at(time, self._record_arrived, (counter, datagrams, segments))
        elif arrived:
            self._clock.at(time, self._record_failed, (counter, arrived))
        self.span.sent(counter, datagrams, message, self._clock.now)
        if self._device:
            self.span.bottleneck.backlogged += 1
        self._next_turn()

    def _reported(self, report: Report) -> None:
        self.span.reported(report, self._counter, self._clock.now)
        self.spans.append((self._clock.now, self.span.span))

    # Receiving

    def _single_arrived(self, record: tuple[int, int, int]) -> None:
        counter, flow, number = record
        now = self._clock.now
        self._replay.mark(counter)
        self._receive_stats.record_received(counter, 1, now)
        if now < self._restorer.until:
            self._restorer.keep(counter, memoryview(_PLAINTEXT.pack(flow, number)))
        if not self._reporting:
            self._report_later()
        self._flows[flow].arrived((number,))

    def _record_arrived(self, record: tuple[int, int, list[tuple[int, int, int]]]) -> None:
        counter, datagrams, segments = record
        self._replay.mark(counter)
        self._receive_stats.record_received(counter, datagrams, self._clock.now)
        if not self._reporting:
            self._report_later()
        for flow, first, count in segments:
            self._flows[flow].arrived(range(first, first + count))

    def _record_failed(self, record: tuple[int, int]) -> None:
        """Count the pieces that arrived of a record that lacks others."""
        self._receive_stats.record_given_up(*record)

    def _parity_arrived(self, record: tuple[int, bytes]) -> None:
        counter, parity = record
        self._replay.mark(counter)
        self._receive_stats.control_received(counter)
        found = self._restorer.restore(Parity.parse(parity), self._replay, self._clock.now)
        if found is None or not self._replay.mark(found[0]):
            return
        self._receive_stats.restored(found[0])
        self.restored += 1
        flow, number = _PLAINTEXT.unpack(found[1])
        self._flows[flow].arrived((number,))

    def _report_later(self) -> None:
        self._reporting = True
        self._clock.at(self._receive_stats.deadline, self._report)

    def _report(self, _: None) -> None:
        self._reporting = False
        report = self._receive_stats.report(self._clock.now)
        if report is not None:
            self._clock.at(self._clock.now + self.path.delay, self._reported, report)
        if self._receive_stats.deadline < inf:
            self._report_later()
