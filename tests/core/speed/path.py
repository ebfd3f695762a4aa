"""Simulated path for the rate of a speed test: a queue with a rate, a delay and a loss, without I/O or real time."""

from __future__ import annotations

import random
from collections import deque

from vpntun.core.speed.rate_control import Acknowledged, RateControl

STEP = 0.001
DATAGRAM = 1400
PROBE_EVERY = 0.05
STALL = 0.03
REPORT_EVERY = 0.05


class Path:
    """A path to a peer that reports as vpntun does, and a sender that obeys the rate control.

    `rate`: bytes a second; `delay`: the round trip without a queue; `queue`: bytes that it holds; `loss`: random;
    `sender`: bytes a second that the sending program is able to send.
    """

    def __init__(
        self,
        rate: float,
        delay: float,
        *,
        queue: float = 1e12,
        loss: float = 0.0,
        sender: float = 1e12,
        size: int = DATAGRAM,
        known_rate: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.rate, self.delay, self.queue, self.loss, self.sender, self.size = rate, delay, queue, loss, sender, size
        self.now = 0.0
        self.control = RateControl(self.now, delay, known_rate)
        self.others = 0.0
        """Bytes a second that others send into the queue."""
        self.noise = 0.0
        """Seconds that a busy machine keeps a PROBE, on the average."""
        self.stalls = 0.0
        """Share of the time in which each end does not run, since its machine lets others run, for 30 ms at a time."""
        self.dead = False
        self.waits: list[tuple[float, float]] = []
        self.sent = self.dropped = 0  # bytes
        self.arrived: list[tuple[float, int]] = []
        self._random = random.Random(seed)
        self._busy_until = 0.0
        self._at_peer: deque[tuple[float, float, int, int]] = deque()  # arrival, sent at, total sent, size
        self._delivered = 0
        self._settled: Acknowledged | None = None
        self._newest: Acknowledged | None = None
        self._to_sender: deque[tuple[float, Acknowledged]] = deque()
        self._echoes: deque[tuple[float, float]] = deque()
        self._next_report, self._next_probe = REPORT_EVERY, 0.0
        self._asked: deque[tuple[float, float]] = deque()  # PROBEs on their way: arrival, sent at
        self._stalled_until = [0.0, 0.0]

    @property
    def wait(self) -> float:
        """Seconds that a datagram waits in the queue now."""
        return max(0.0, self._busy_until - self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self._busy_until = max(self._busy_until, self.now - STEP) + self.others * STEP / self.rate
            here, there = self._runs(0), self._runs(1)
            if here:
                self._send()
                self._probe()
            if there:
                self._peer()
            if here:
                self._receive()
            self.waits.append((self.now, self.wait))

    def _runs(self, end: int) -> bool:
        """Return whether an end's program runs now, or stop it for a while."""
        if self.now < self._stalled_until[end]:
            return False
        if self.stalls and self._random.random() < STEP / STALL * self.stalls / (1 - self.stalls):
            self._stalled_until[end] = self.now + self._random.expovariate(1 / STALL)
            return False
        return True

    def _send(self) -> None:
        could = int(self.sender * STEP)
        while could > 0 and (size := min(self.size, self.control.allowance(self.sent, self.now))) >= DATAGRAM:
            could -= size
            self.sent += size
            came = self._random.random() >= self.loss and self.wait * self.rate < self.queue and not self.dead
            if came:
                self._busy_until = max(self._busy_until, self.now) + size / self.rate
            else:
                self.dropped += size
            self._at_peer.append((self.now + self.wait + self.delay / 2, self.now, self.sent, size if came else 0))

    def _probe(self) -> None:
        if self.now >= self._next_probe:
            self._next_probe += PROBE_EVERY
            if not self.dead:
                noise = self._random.expovariate(1 / self.noise) if self.noise else 0.0
                self._asked.append((self.now + self.wait + self.delay / 2 + noise, self.now))

    def _peer(self) -> None:
        while self._asked and self._asked[0][0] <= self.now:
            self._echoes.append((self.now + self.delay / 2, self._asked.popleft()[1]))
        while self._at_peer and self._at_peer[0][0] <= self.now:
            at, sent_at, total, size = self._at_peer.popleft()
            if size:
                self._delivered += size
                self.arrived.append((at, size))
                self._newest = Acknowledged(at, sent_at, total, self._delivered)
        if self.now >= self._next_report:
            self._next_report += REPORT_EVERY
            if self._settled is not None and not self.dead:
                self._to_sender.append((self.now + self.delay / 2, self._settled))
            self._settled = self._newest

    def _receive(self) -> None:
        while self._echoes and self._echoes[0][0] <= self.now:
            at, asked = self._echoes.popleft()
            self.control.echoed(at - asked, self.now)
        while self._to_sender and self._to_sender[0][0] <= self.now:
            self.control.reported(self._to_sender.popleft()[1]._replace(at=self.now))

    def rate_after(self, since: float) -> float:
        """Bytes a second that have arrived since then."""
        return sum(size for at, size in self.arrived if at >= since) / (self.now - since)

    def longest_wait(self, since: float) -> float:
        return max(wait for at, wait in self.waits if at >= since)
