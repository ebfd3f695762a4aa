"""Count of the load of a speed test at the end that receives it, and the rate that follows.

The rate is that of the test's later part: in the first two fifths the sender still looks for the path's rate.
Sizes are bytes, times seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.types import NEVER

WARM_UP = 0.4
"""Share of a test that does not count."""


class Arrivals:
    """Arrivals of one test that lasts `seconds`. `total`: bytes that have arrived."""

    __slots__ = ("_counted", "_first", "_seconds", "_since", "total")

    def __init__(self, seconds: float) -> None:
        self.total = 0
        self._seconds = seconds
        self._first = NEVER
        self._since = NEVER
        self._counted = 0

    def received(self, size: int, now: float) -> None:
        """Count a record."""
        if not self.total:
            self._first = now
        self.total += size
        if now - self._first <= self._seconds:  # what waited in a queue comes later
            if self._since < NEVER:
                self._counted += size
            elif now - self._first >= WARM_UP * self._seconds:
                self._since = now

    def rate(self, now: float) -> float:
        """Bytes a second so far, a pause at the end included; 0 if too little has arrived to tell."""
        time = min(now, self._first + self._seconds) - self._since
        return self._counted / time if time > 0 else 0.0
