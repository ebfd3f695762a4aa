"""One direction of a long path: what becomes of each frame, and when. Pure: time is an argument.

A frame is lost by chance, or dropped because the queue is full, or waits for those before it, takes its time at the
rate, and comes out the delay later. Frames keep their order.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class Terms:
    """Of one direction. A rate of 0 is none, and then there is no queue."""

    delay: float = 0.0  # seconds
    rate: float = 0.0  # bytes a second
    queue: int = 1_500_000  # bytes that may wait for the rate
    loss: float = 0.0  # share of the frames


class Way:
    def __init__(self, terms: Terms, seed: int) -> None:
        self._terms = terms
        self._chance = random.Random(seed).random
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0  # when the last frame taken will have gone out at the rate
        self.carried = self.lost = self.dropped = 0
        self.most_late = 0.0  # how long after its time a frame was given out, at worst

    @property
    def next_due(self) -> float | None:
        """When the next frame comes out."""
        return self._under_way[0][0] if self._under_way else None

    def take(self, frame: bytes, now: float) -> None:
        """A frame comes in."""
        terms = self._terms
        if terms.loss and self._chance() < terms.loss:
            self.lost += 1
            return
        due = now
        if terms.rate:
            start = max(self._free_at, now)
            if (start - now) * terms.rate + len(frame) > terms.queue:
                self.dropped += 1
                return
            due = self._free_at = start + len(frame) / terms.rate
        self._under_way.append((due + terms.delay, frame))

    def give(self, now: float) -> list[bytes]:
        """The frames that have come out by now."""
        under_way = self._under_way
        given = []
        while under_way and under_way[0][0] <= now:
            due, frame = under_way.popleft()
            self.most_late = max(self.most_late, now - due)
            given.append(frame)
        self.carried += len(given)
        return given
