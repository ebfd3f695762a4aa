"""A token bucket that limits a rate: `burst` tokens at once, `rate` per second in the long run.

Times are seconds of the caller's clock.
"""

from __future__ import annotations


class TokenBucket:
    """A bucket that starts full, with `burst` tokens."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = float("-inf")

    def take(self, now: float, count: int = 1) -> bool:
        """Take a token, or `count` of them; return whether there were as many."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < count:
            return False
        self._tokens -= count
        return True
