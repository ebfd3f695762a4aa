"""Whether the path delays what it is sent: a queue in it is filling, and it is the path that limits the link.

    baseline    the shortest round trip of the last 30 to 60 s, of PROBEs and of records with their REPORTs
    seen        records take 3.5 ms and 2% longer than that, smoothed: the newest weighs a quarter; `seen_at` is when
                that was last so
    standing    each of the last three did: the queue does not run empty; `stood_at` is when that was last so
    empty       none of the last three did

A flow that begins fills the queue before the first REPORT of it comes, so a PROBE's round trip, measured on the idle
path, is the better baseline. Times are seconds of the caller's clock.
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
    """Of one path. `is_standing` and `is_empty`: of its queue."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=SAMPLES)
        self.moved()

    def moved(self) -> None:
        """Forget everything: it is another path."""
        self.idle()
        self._shortest = self._former_shortest = self._shortest_of_probes = NEVER
        self._begun_at = -NEVER

    def idle(self) -> None:
        """Forget the queue, which is empty after a second without a record."""
        self.seen_at = self.stood_at = -NEVER
        self.is_standing = False
        self.is_empty = True
        self._waits.clear()
        self._waiting = 0.0

    @property
    def is_short(self) -> bool:
        """Whether a PROBE has come back within 5 ms: records tell it less surely, since a busy peer's clock lags."""
        return self._shortest_of_probes < SHORT

    def note_probe(self, seconds: float, now: float) -> None:
        """Take a PROBE's round trip into the baseline."""
        self._shortest_of_probes = min(self._shortest_of_probes, seconds)
        self._note_round_trip(seconds, now)

    def _note_round_trip(self, seconds: float, now: float) -> None:
        if now - self._begun_at >= BASELINE_HOLDS:
            self._former_shortest, self._shortest = self._shortest, NEVER
            self._begun_at = now
        self._shortest = min(self._shortest, seconds)

    def take(self, round_trip: float, pause: float, now: float) -> None:
        """Take a record's round trip; up to `pause` of it the peer may have waited for the next record."""
        self._note_round_trip(round_trip, now)
        shortest = min(self._shortest, self._former_shortest)
        most = LEAST + SHARE * shortest
        self._waits.append(round_trip - pause - shortest)
        self._waiting += (max(0.0, self._waits[-1]) - self._waiting) * SMOOTHING
        if self._waiting > most:
            self.seen_at = now
        self.is_standing = len(self._waits) == SAMPLES and min(self._waits) > most
        self.is_empty = max(self._waits) <= most
        if self.is_standing:
            self.stood_at = now
