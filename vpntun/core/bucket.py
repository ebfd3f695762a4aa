"""A token bucket that limits a rate: `burst` tokens at once, `rate` per second in the long run.

Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

Owner = TypeVar("Owner", bound=Hashable)


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


class TokenBuckets(Generic[Owner]):
    """One bucket for each owner, such as a link, as long as that exists."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: WeakKeyDictionary[Owner, TokenBucket] = WeakKeyDictionary()

    def of(self, owner: Owner) -> TokenBucket:
        """Return an owner's bucket."""
        bucket = self._buckets.get(owner)
        if bucket is None:
            bucket = self._buckets[owner] = TokenBucket(self._rate, self._burst)
        return bucket
