"""A simulated path for the span: a sender, a meter at the other end, and a clock that ticks by the millisecond."""

from __future__ import annotations

import heapq
import random

from vpntun.core.records.receive_stats import ReceiveStats
from vpntun.core.records.span import Span
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import PARITY_SIZE, Report

PAYLOAD = 1472
MBIT = 1e6 / 8
SINGLE = PAYLOAD - DATA_OVERHEAD
"""Bytes of plaintext in a record of one datagram."""


class Simulation:
    """A sender that has `offered` bytes a second to send over a path of `rate`; the queue of the path is its own."""

    def __init__(
        self,
        rate: float = 1000 * MBIT,
        *,
        loss: float = 0.0,
        delay: float = 0.01,
        queue: float = 0.05,
        jitter: float = 0.0,
        payload: int = PAYLOAD,
        seed: int = 1,
        protectable: bool = False,
    ) -> None:
        self.rate, self.loss, self.delay, self.queue, self.jitter = rate, loss, delay, queue, jitter
        self.now = 100.0
        self.payload = payload
        self.span = Span(payload, self.now)
        self.span.protection.possible = protectable
        self.span.estimator.delay.note_probe(2 * delay, self.now)
        self.meter = ReceiveStats()
        self.drops_bursts = False
        self.drops_longer_than = 65_535
        self.silent = False
        self.spans: list[int] = []
        self.protected: list[bool] = []
        self.lost_records = 0
        self.parities = self.protected_bursts = 0
        self._counter = 0
        self._first_of_group = 0
        self._opened: set[int] = set()
        self._unfinished: dict[int, int] = {}
        self._owed = 0.0
        self._busy_until = 0.0
        self._rng = random.Random(seed)
        self._events: list[tuple[float, int, str, tuple[int, int, int] | Report]] = []
        self._order = 0

    def run(self, seconds: float, offered: float, *, saturated: bool = False) -> None:
        """Send for so long. `saturated`: the sender's processor is what limits it."""
        for _ in range(int(seconds * 1000)):
            self.now += 0.001
            self._deliver()
            self._owed += offered / 1000
            if not saturated:
                self.span.bottleneck.slept += 0.0008
            while self._owed > 0:
                if self.now >= self.span.deadline:
                    self.span.handle_deadline(self.now)
                size = (
                    self.span.largest_record if saturated else min(self.span.largest_record, max(1400, int(self._owed)))
                )
                self._owed -= size
                self.send(size)
                if saturated:
                    self.span.bottleneck.backlogged += 1
            self.spans.append(self.span.span)
            self.protected.append(self.span.protection.active)

    def rest(self, seconds: float) -> None:
        """Nothing to send."""
        self._owed = 0.0
        for _ in range(int(seconds * 1000)):
            self.now += 0.001
            self._deliver()

    def send(self, size: int) -> None:
        """Send one record with packets."""
        message = size + DATA_OVERHEAD
        datagrams = datagrams_for(message, self.payload) if self.payload else 1
        counter, self._counter = self._counter, self._counter + 1
        if datagrams > 1 or not self.payload:
            self.span.sent(counter, datagrams, message, self.now)
        else:
            self.span.sent_singles(counter, 1, message, message, self.now)
        arrived = self._carry(datagrams, message)
        needed = datagrams
        if datagrams > 1 and self.span.protects_bursts:
            self.protected_bursts += 1
            needed -= self._carry(1, message // datagrams)
        self.lost_records += arrived < needed
        self._at(self._arrival(), "record", (counter, arrived, needed))
        if datagrams > 1 or not self.span.protection.active:
            self._first_of_group = self._counter
        elif self._counter - self._first_of_group >= self.span.protection.group:
            self._send_parity(message + PARITY_SIZE)

    def _send_parity(self, message: int) -> None:
        counter, self._counter = self._counter, self._counter + 1
        self.parities += 1
        self.span.sent_singles(counter, 1, message, message, self.now)
        if self._carry(1, message):
            self._at(self._arrival(), "parity", (counter, self._first_of_group, counter - self._first_of_group))
        self._first_of_group = self._counter

    def _arrival(self) -> float:
        return self._busy_until + self.delay + self._rng.random() * self.jitter

    def _carry(self, datagrams: int, message: int) -> int:
        """Send datagrams of a message; return how many arrive."""
        begin = max(self.now, self._busy_until)
        arrived = 0
        for _ in range(datagrams):
            if begin - self.now > self.queue:
                break
            begin += message / datagrams / self.rate
            arrived += self._rng.random() >= self.loss
        self._busy_until = begin
        if message / datagrams > self.drops_longer_than or (datagrams > 1 and self.drops_bursts):
            arrived = 0
        return 0 if self.silent else arrived

    def control(self) -> None:
        """Use a counter for something that carries no packets."""
        self._at(self.now + self.delay, "control", (self._counter, 1, 1))
        self._counter += 1

    def new_session(self) -> None:
        """Begin a new session at both ends."""
        self._events.clear()
        self._unfinished.clear()
        self._opened.clear()
        self._first_of_group = 0
        self._counter = 0
        self.meter.reset()
        self.span.new_session(self.now)

    def _restore(self, lost: set[int]) -> None:
        if len(lost) == 1:
            self._opened |= lost
            self.meter.restored(*lost)
            self.lost_records -= 1

    def _at(self, time: float, kind: str, what: tuple[int, int, int] | Report) -> None:
        self._order += 1
        heapq.heappush(self._events, (time, self._order, kind, what))

    def _deliver(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            _, _, kind, what = heapq.heappop(self._events)
            if isinstance(what, Report):
                self.span.reported(what, self._counter, self.now)
                continue
            counter, arrived, datagrams = what  # of which that many are needed
            if kind == "control":
                self.meter.control_received(counter)
            elif kind == "parity":
                self.meter.control_received(counter)
                self._restore(set(range(arrived, arrived + datagrams)) - self._opened)
            elif counter in self._opened:
                continue
            elif arrived >= datagrams:
                self._opened.add(counter)
                self.meter.record_received(counter, arrived, self.now)
            elif arrived:
                self._unfinished[counter] = arrived
        if self.now >= self.meter.deadline:
            settled = self.meter.settled
            waiting = sum(arrived for counter, arrived in self._unfinished.items() if counter <= settled)
            report = self.meter.report(self.now, waiting)
            if report is not None:
                self._at(self.now + self.delay, "report", report)
