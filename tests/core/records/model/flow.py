"""The model's TCP sender, which always has data, and its receiver."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Protocol

from tests.core.records.model.control import Control, Sample, chunk_at
from tests.core.records.model.line import RECEIVE_WINDOW, SEGMENT, SUPERPACKET, Clock, Path


@dataclass(slots=True)
class _Sent:
    at: float
    delivered: int
    delivered_at: float
    first_at: float
    """Send time of the segment acknowledged last before this one was sent."""


class Way(Protocol):
    """What a flow sends its segments into."""

    path: Path

    def join(self, flow: Flow) -> int:
        """Add a flow, and return its index."""

    def write(self, flow: int, first: int, count: int) -> None:
        """Queue consecutive segments of a flow."""


class Flow:
    """A TCP flow that always has data, from `begin` on. `received`: bytes acknowledged."""

    def __init__(self, clock: Clock, tunnel: Way, control: Control, begin: float = 0.0) -> None:
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
