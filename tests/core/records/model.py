"""A model of TCP through a tunnel: flows, the sender's processor, the tunnel, and a path with a bottleneck queue.

It simulates discrete events on an explicit clock, without sleeping and without sockets. From sender to receiver:

    Flow        a TCP sender that always has data, and its receiver. Cubic, LinuxCubic or Bbr sets its window and pace.
                It detects loss as RACK does, with a reordering window of a quarter of the round trip once it has seen
                reordering, and undoes a reduction when every segment that caused it arrives after all
    Tunnel      the device, a processor that takes time for each record and each datagram, and the program's Span,
                ParityMaker, Restorer, ReplayWindow and Meter. PlainTunnel has the device and the processor only, and
                sends each segment in one datagram
    Path        a rate, a tail-drop queue counted in packets, random loss, and a one-way delay. Tunnels may share one

Acknowledgements and REPORTs return after the one-way delay and are never lost. The model does not distinguish
retransmissions from new data: a lost segment is not counted, and another one takes its place. `Flow.received` is
therefore the application's throughput, if the receive buffer is large and the wait for holes is ignored.

Sizes are bytes, times seconds, rates bytes a second, unless stated otherwise.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from vpntun.core.records.parity import ParityMaker, Restorer
from vpntun.core.records.receive_stats import ReceiveStats
from vpntun.core.records.span import Span
from vpntun.crypto.replay import ReplayWindow
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE
from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE, Parity, Report

MBIT = 1e6 / 8
PAYLOAD = 1472
PACKET = 1420
"""An inner packet: the tunnel's MTU."""
PACKET_HEADERS = 52
SEGMENT = PACKET - PACKET_HEADERS
OUTER_HEADERS = 28
RECORD = BUNDLE_START + ENTRY_SIZE + PACKET
"""The plaintext of a record of one packet."""
SUPERPACKET = 44
"""Segments that the kernel hands over at once, at most."""
RECEIVE_WINDOW = 4000
"""Segments in flight, at most."""

_PLAINTEXT = struct.Struct("!IQ")


class Clock:
    """Runs events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._order = 0

    def at(self, time: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Call `action` with this argument at this time."""
        self._order += 1
        heapq.heappush(self._events, (time, self._order, action, argument))

    def run(self, until: float) -> None:
        """Run until this time."""
        events = self._events
        while events and events[0][0] <= until:
            self.now, _, action, argument = heapq.heappop(events)
            action(argument)
        self.now = until


# The path


@dataclass(frozen=True)
class Line:
    """Parameters of a path: `rate` in Mbit/s, `delay` one way in milliseconds, `queue` in packets, `loss` a share."""

    rate: float
    delay: float
    queue: int
    loss: float = 0.0

    def __str__(self) -> str:
        return f"{self.rate:g}:{self.delay:g}:{self.queue}:{self.loss:.1%}"


class Path:
    """A bottleneck with a tail-drop queue. `sent`: bytes offered; `dropped`: datagrams the queue had no room for."""

    def __init__(self, clock: Clock, line: Line, seed: int = 1) -> None:
        self.delay = line.delay / 1000
        self.sent = 0
        self.dropped = 0
        self._clock = clock
        self._rate = line.rate * MBIT
        self._queue = line.queue
        self._loss = line.loss
        self._random = random.Random(seed).random
        self._leaving: deque[float] = deque()
        self._busy_until = 0.0

    def offer(self, size: int) -> float:
        """Send a datagram of this size, outer headers included. Return the time it arrives, or 0 if it is lost."""
        now, leaving = self._clock.now, self._leaving
        self.sent += size
        if self._loss and self._random() < self._loss:
            return 0.0
        while leaving and leaving[0] <= now:
            leaving.popleft()
        if len(leaving) > self._queue:  # one of them is being sent
            self.dropped += 1
            return 0.0
        leaves = self._busy_until = max(now, self._busy_until) + size / self._rate
        leaving.append(leaves)
        return leaves + self.delay


# The flow


class Control(Protocol):
    """Congestion control. `window`: segments; `pace`: segments a second, infinite for a sender that does not pace."""

    window: float
    pace: float

    def acked(self, sample: Sample) -> None:
        """Take in an acknowledgement."""

    def lost(self, now: float) -> None:
        """Reduce the window: segments were lost, for the first time in this round trip."""

    def undo(self) -> None:
        """Undo the last `lost`: the segments have arrived after all."""


@dataclass(slots=True)
class Sample:
    """Measurements of one acknowledgement. `round` counts round trips; `rate` is in segments a second, 0 if unknown."""

    now: float
    count: int
    round_trip: float
    shortest: float
    round: int
    rate: float
    in_flight: int


class Cubic:
    """Roughly RFC 9438 with HyStart's delay rule."""

    BETA, SCALE = 0.7, 0.4

    def __init__(self) -> None:
        self.window = 10.0
        self.pace = inf
        self._threshold = inf
        self._peak = 0.0
        self._epoch: float | None = None
        self._origin = self._turn = self._reno = 0.0
        self._before = (10.0, inf, 0.0)
        self._round = -1
        self._round_samples = 0
        self._round_shortest = inf

    def acked(self, sample: Sample) -> None:
        if self.window < self._threshold:
            self._look_at_delay(sample)
            self.window += sample.count
            return
        now, count, window = sample.now, sample.count, self.window
        if self._epoch is None:
            self._epoch = now
            self._reno = window
            self._origin = max(window, self._peak)
            self._turn = ((self._origin - window) / self.SCALE) ** (1 / 3)
        target = self._origin + self.SCALE * (now - self._epoch + sample.shortest - self._turn) ** 3
        step = min(0.5, max(0.01, (target - window) / window))
        self._reno += 3 * (1 - self.BETA) / (1 + self.BETA) * count / window
        self.window = max(window + count * step, self._reno)

    def lost(self, now: float) -> None:
        window = self.window
        self._before = window, self._threshold, self._peak
        self._peak = window * (1 + self.BETA) / 2 if window < self._peak else window
        self.window = self._threshold = max(2.0, window * self.BETA)
        self._epoch = None

    def undo(self) -> None:
        window, self._threshold, self._peak = self._before
        self.window = max(self.window, window)
        self._epoch = None

    def _look_at_delay(self, sample: Sample) -> None:
        """End slow start if the first eight round trips of a round all exceed the shortest by an eighth."""
        if sample.round != self._round:
            self._round, self._round_samples, self._round_shortest = sample.round, 0, inf
        self._round_samples += 1
        self._round_shortest = min(self._round_shortest, sample.round_trip)
        longer = min(0.016, max(0.004, sample.shortest / 8))
        if self._round_samples == 8 and self.window >= 16 and self._round_shortest > sample.shortest + longer:
            self._threshold = self.window


class LinuxCubic(Cubic):
    """CUBIC with Linux's second HyStart rule: an unbroken train of ACKs half a round trip long ends slow start."""

    CLOSE = 0.002

    def __init__(self) -> None:
        super().__init__()
        self._train_round = -1
        self._train_began = self._train_ends = 0.0

    def acked(self, sample: Sample) -> None:
        if self.window < self._threshold:
            self._look_at_train(sample.now, sample)
        super().acked(sample)

    def _look_at_train(self, now: float, sample: Sample) -> None:
        if sample.round != self._train_round:
            self._train_round, self._train_began, self._train_ends = sample.round, now, now
        elif now - self._train_ends <= self.CLOSE:
            self._train_ends = now
            if self.window >= 16 and now - self._train_began > sample.shortest / 2:
                self._threshold = self.window


class Bbr:
    """Roughly BBR v1, without the probe of the round trip every ten seconds."""

    HIGH = 2.885
    CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    ROUNDS = 10

    def __init__(self) -> None:
        self.window = 10.0
        self.pace = inf
        self._rates: deque[tuple[int, float]] = deque()
        self._gain = self.HIGH
        self._mode = "startup"
        self._full = 0.0
        self._full_rounds = 0
        self._round = -1
        self._phase = 2
        self._phase_began = 0.0

    def acked(self, sample: Sample) -> None:
        rates = self._rates
        while rates and rates[0][0] < sample.round - self.ROUNDS:
            rates.popleft()
        if sample.rate:
            while rates and rates[-1][1] <= sample.rate:
                rates.pop()
            rates.append((sample.round, sample.rate))
        if not rates:
            return
        rate = rates[0][1]
        pipe = rate * sample.shortest
        if self._mode == "startup":
            self._look_whether_full(sample.round, rate)
        if self._mode == "drain" and sample.in_flight <= pipe:
            self._mode = "probe"
            self._phase_began = sample.now
            self._gain = self.CYCLE[self._phase]
        elif self._mode == "probe":
            self._go_on(sample, pipe)
        self.pace = self._gain * rate
        self.window = max(4.0, (self.HIGH if self._mode == "startup" else 2.0) * pipe + 3 * chunk_at(self.pace))

    def lost(self, now: float) -> None:
        pass

    def undo(self) -> None:
        pass

    def _look_whether_full(self, this_round: int, rate: float) -> None:
        if this_round == self._round:
            return
        self._round = this_round
        if rate >= 1.25 * self._full:
            self._full, self._full_rounds = rate, 0
            return
        self._full_rounds += 1
        if self._full_rounds == 3:
            self._mode = "drain"
            self._gain = 1 / self.HIGH

    def _go_on(self, sample: Sample, pipe: float) -> None:
        elapsed = sample.now - self._phase_began >= sample.shortest
        if (elapsed and (self._gain <= 1 or sample.in_flight >= 1.25 * pipe)) or (
            self._gain < 1 and sample.in_flight <= pipe
        ):
            self._phase = (self._phase + 1) % len(self.CYCLE)
            self._phase_began = sample.now
            self._gain = self.CYCLE[self._phase]


def chunk_at(pace: float) -> int:
    """Return the number of segments to send at once when pacing: those of one millisecond."""
    return int(min(SUPERPACKET, max(2, pace / 1000)))


@dataclass(slots=True)
class _Sent:
    at: float
    delivered: int
    delivered_at: float
    first_at: float
    """Send time of the segment acknowledged last before this one was sent."""


class Flow:
    """A TCP flow that always has data, from `begin` on. `received`: bytes acknowledged."""

    def __init__(self, clock: Clock, tunnel: PlainTunnel, control: Control, begin: float = 0.0) -> None:
        self.received = 0
        self.retransmitted = 0
        self.undone = 0
        self.control = control
        self._clock = clock
        self._tunnel = tunnel
        self.index = tunnel.join(self)
        self._next = 0
        self._outstanding: dict[int, _Sent] = {}
        self._order: deque[int] = deque()
        self._delivered = 0
        self._delivered_at = begin
        self._first_at = begin
        self._latest = -1
        self._latest_sent_at = 0.0
        self._round = self._round_ends = 0
        self._round_trip, self._shortest = 0.1, inf
        self._recovery_ends = 0
        self._doubted: set[int] = set()
        """Segments declared lost since the last reduction that have not arrived since."""
        self._reordering = False
        self._release_at = 0.0
        self._waking = False
        self._progress_at = begin
        self._unacknowledged: list[int] = []
        self._greatest = -1
        clock.at(begin, self._begin)

    # The receiver

    def arrived(self, numbers: Iterable[int]) -> None:
        """Receive segments. Every second one is acknowledged, and one out of order immediately."""
        waiting = self._unacknowledged
        in_order = True
        for number in numbers:
            in_order &= number == self._greatest + 1
            self._greatest = max(self._greatest, number)
            waiting.append(number)
        if len(waiting) > 1 or not in_order:
            self._unacknowledged = []
            self._clock.at(self._clock.now + self._tunnel.path.delay, self._acknowledged, waiting)

    # The sender

    def _begin(self, _: None) -> None:
        self._send()
        self._watch(None)

    def _acknowledged(self, numbers: list[int]) -> None:
        now = self._clock.now
        self._progress_at = now
        last: _Sent | None = None
        count = 0
        for number in numbers:
            sent = self._outstanding.pop(number, None)
            if sent is None:
                self._was_not_lost(number)
                continue
            count += 1
            if number > self._latest:
                self._latest, self._latest_sent_at, last = number, sent.at, sent
        self._delivered += count
        self._delivered_at = now
        self.received += count * SEGMENT
        if last is not None:
            self._take_sample(last, count, now)
        self._detect_loss(now)
        self._send()

    def _take_sample(self, sent: _Sent, count: int, now: float) -> None:
        self._round_trip = now - sent.at
        self._shortest = min(self._shortest, self._round_trip)
        self._first_at = sent.at
        if sent.delivered >= self._round_ends:
            self._round += 1
            self._round_ends = self._delivered
        interval = max(now - sent.delivered_at, sent.at - sent.first_at)
        rate = (self._delivered - sent.delivered) / interval if interval >= self._shortest else 0.0
        self.control.acked(
            Sample(now, count, self._round_trip, self._shortest, self._round, rate, len(self._outstanding))
        )

    def _detect_loss(self, now: float) -> None:
        outstanding, order = self._outstanding, self._order
        patience = self._shortest / 4
        while order:
            number = order[0]
            sent = outstanding.get(number)
            if sent is not None:
                if number >= self._latest:
                    break
                surely = not self._reordering and self._latest - number >= 3
                if not surely and now < sent.at + self._round_trip + patience:
                    break
                del outstanding[number]
                self._note_lost(number, now)
            order.popleft()

    def _note_lost(self, number: int, now: float) -> None:
        self.retransmitted += 1
        if number >= self._recovery_ends:
            self._recovery_ends = self._next
            self._doubted.clear()
            self.control.lost(now)
        self._doubted.add(number)

    def _was_not_lost(self, number: int) -> None:
        self._reordering = True
        if number in self._doubted:
            self._doubted.remove(number)
            if not self._doubted:
                self.undone += 1
                self.control.undo()

    def _send(self) -> None:
        control, now = self.control, self._clock.now
        while (room := int(min(control.window, RECEIVE_WINDOW)) - len(self._outstanding)) > 0:
            if control.pace == inf:
                self._emit(min(room, SUPERPACKET))
                continue
            if now < self._release_at - 1e-9:
                if not self._waking:
                    self._waking = True
                    self._clock.at(self._release_at, self._wake)
                return
            count = min(room, chunk_at(control.pace))
            self._release_at = now + count / control.pace
            self._emit(count)

    def _wake(self, _: None) -> None:
        self._waking = False
        self._send()

    def _emit(self, count: int) -> None:
        now, first = self._clock.now, self._next
        self._next = first + count
        if not self._outstanding:
            self._first_at = self._delivered_at = now
        sent = _Sent(now, self._delivered, self._delivered_at, self._first_at)
        self._outstanding.update(dict.fromkeys(range(first, first + count), sent))
        self._order.extend(range(first, first + count))
        self._tunnel.write(self.index, first, count)

    def _watch(self, _: None) -> None:
        """Send a tail loss probe if no acknowledgement has come for two round trips."""
        now = self._clock.now
        patience = 2 * self._round_trip + 0.01
        if now - self._progress_at >= patience:
            self._progress_at = now
            self._emit(2)
        self._clock.at(self._progress_at + patience, self._watch)


# The tunnel


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
        self.span = Span(PAYLOAD, 1, clock.now)
        self.span.protection.possible = True
        self.span.estimator.delay.note_probe(2 * path.delay, clock.now)  # the search for the path's MTU
        self.span.path(PAYLOAD, 1, clock.now)
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


# An experiment


@dataclass
class Outcome:
    """Results of a run. `tunnels` is empty for plain tunnels.

    throughput    of each flow, in Mbit/s, from `since` on
    overhead      bytes sent per byte received
    dropped       datagrams the queue had no room for
    """

    throughput: list[float]
    overhead: float
    dropped: int
    tunnels: list[Tunnel]


def run(
    line: Line,
    control: Callable[[], Control],
    seconds: float,
    *,
    plain: bool = False,
    begins: Iterable[float] = (0.0,),
    since: float = 0.0,
    processor: Processor | None = None,
    seed: int = 1,
) -> Outcome:
    """Run flows over a shared path, each through a tunnel of its own; `begins` lists their start times."""
    clock = Clock()
    path = Path(clock, line, seed)
    kind = PlainTunnel if plain else Tunnel
    tunnels: list[PlainTunnel] = []
    flows = []
    for begin in begins:
        tunnels.append(kind(clock, path, processor or Processor()))
        flows.append(Flow(clock, tunnels[-1], control(), begin))
    clock.run(since)
    former = [flow.received for flow in flows]
    clock.run(seconds)
    return Outcome(
        [(flow.received - before) / (seconds - since) / MBIT for flow, before in zip(flows, former, strict=True)],
        path.sent / max(1, sum(flow.received for flow in flows)),
        path.dropped,
        [tunnel for tunnel in tunnels if isinstance(tunnel, Tunnel)],
    )
