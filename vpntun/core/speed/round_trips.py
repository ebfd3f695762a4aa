"""Round trips of PROBEs during a speed test, and their summary.

A PROBE is sent every 50 ms, so the one that answers is told by its token. Those that are not answered within 5 s are
forgotten. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles
from typing import NamedTuple

INTERVAL = 0.05
MOST_OUT = 128
FORGOTTEN_AFTER = 5.0


class Latency(NamedTuple):
    """Summary of round trips, in seconds."""

    shortest: float
    median: float
    most: float
    """Longer than 95% of the others."""


class RoundTrips:
    """PROBEs of one test. `due`: when the next one is to be sent; `taken`: the round trips, oldest first."""

    def __init__(self, now: float) -> None:
        self.due = now
        self.taken: list[float] = []
        self._asked: dict[int, float] = {}

    def asked(self, token: int, now: float) -> None:
        """Note that a PROBE with this token is sent."""
        self.due = max(self.due + INTERVAL, now + INTERVAL / 2)
        while self._asked:
            oldest = next(iter(self._asked))
            if len(self._asked) < MOST_OUT and now - self._asked[oldest] < FORGOTTEN_AFTER:
                break
            del self._asked[oldest]
        self._asked[token] = now

    def forget_asked(self) -> None:
        """Ignore the ECHOs of all PROBEs that are out: they were sent elsewhere."""
        self._asked.clear()

    def echoed(self, token: int, now: float) -> float | None:
        """Return the round trip that an ECHO shows; None if it answers no PROBE of this test."""
        asked = self._asked.pop(token, None)
        if asked is None:
            return None
        self.taken.append(now - asked)
        return self.taken[-1]


def summary(round_trips: Sequence[float]) -> Latency | None:
    """Summarise round trips; None if there are none."""
    if not round_trips:
        return None
    most = quantiles(round_trips, n=20, method="inclusive")[-1] if len(round_trips) > 1 else round_trips[0]
    return Latency(min(round_trips), median(round_trips), most)
