"""The model's clock and path: a rate, a tail-drop queue counted in packets, random loss, and a one-way delay."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vpntun.wire.record import BUNDLE_START, ENTRY_SIZE

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
