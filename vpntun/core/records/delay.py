"""Detection of a filling queue: the path delays packets, so it is what limits the link.

    baseline    the shortest round trip of the last 30 to 60 s, of PROBEs and of records with their REPORTs
    delayed     round trips of records, smoothed (the newest weighs a quarter), exceed the baseline by more than 3.5 ms
                plus 2% of it; `seen_at` is the last time
    standing    each of the last three exceeds it by as much: the queue does not run empty; `stood_at` is the last time
    empty       none of the last three does

A new flow fills the queue before its first REPORT comes. So a PROBE's round trip, measured on the idle path, is the
better baseline. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque

from vpntun.types import NEVER

LEAST = 0.0035
SHARE = 0.02
SMOOTHING = 0.25
SAMPLES = 3
BASELINE_HOLDS = 30.0
SHORT = 0.005


class Delay:
    """Delay of one path. `is_standing` and `is_empty` describe its queue."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=SAMPLES)
        self.moved()

    def moved(self) -> None:
        """Forget everything: it is another path."""
        self.idle()
        self._shortest = self._former_shortest = self._shortest_of_probes = NEVER
        self._shortest_since = -NEVER

    def idle(self) -> None:
        """Forget the queue, which is empty after a second without a record."""
        self.seen_at = self.stood_at = -NEVER
        self.is_standing = False
        self.is_empty = True
        self._waits.clear()
        self._smoothed_wait = 0.0

    @property
    def is_short(self) -> bool:
        """Whether a PROBE has come back within 5 ms. Records show this less reliably: a busy peer's clock lags."""
        return self._shortest_of_probes < SHORT

    def note_probe(self, seconds: float, now: float) -> None:
        """Use a PROBE's round trip for the baseline."""
        self._shortest_of_probes = min(self._shortest_of_probes, seconds)
        self._note_round_trip(seconds, now)

    def _note_round_trip(self, seconds: float, now: float) -> None:
        if now - self._shortest_since >= BASELINE_HOLDS:
            self._former_shortest, self._shortest = self._shortest, NEVER
            self._shortest_since = now
        self._shortest = min(self._shortest, seconds)

    def take(self, round_trip: float, pause: float, now: float) -> None:
        """Learn from a record's round trip. Up to `pause` of it, the peer may have waited for the next record."""
        self._note_round_trip(round_trip, now)
        shortest = min(self._shortest, self._former_shortest)
        most = LEAST + SHARE * shortest
        self._waits.append(round_trip - pause - shortest)
        self._smoothed_wait += (max(0.0, self._waits[-1]) - self._smoothed_wait) * SMOOTHING
        if self._smoothed_wait > most:
            self.seen_at = now
        self.is_standing = len(self._waits) == SAMPLES and min(self._waits) > most
        self.is_empty = max(self._waits) <= most
        if self.is_standing:
            self.stood_at = now
