"""Rate limit for each network that messages come from: an IPv4 address, or an IPv6 /64.

Each has a bucket, by default of five tokens that refills by twenty a second (kernel ratelimiter.c). A network that has
sent nothing for one to two seconds is forgotten, since its bucket should be full again by then. At most 65,536 are
known at a time; while there are as many, any other network is refused.
"""

from __future__ import annotations

from vpntun.core.bucket import TokenBucket

RATE = 20.0
BURST = 5
MOST_NETWORKS = 65_536
SECONDS_BETWEEN_SWEEPS = 1.0
IPV4_SIZE = 4
IPV6_NETWORK_SIZE = 8


def network_of(address: bytes) -> bytes:
    """Return the network that an address (4 or 16 bytes) counts for: the IPv4 address itself, or the IPv6 /64."""
    return address if len(address) == IPV4_SIZE else address[:IPV6_NETWORK_SIZE]


class SourceLimits:
    """The buckets of all networks, each with `rate` and `burst` as in bucket.py.

    Times are seconds of the caller's clock. A bucket must be full again within a second: `burst` <= `rate`.
    """

    def __init__(self, rate: float = RATE, burst: int = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._recent: dict[bytes, TokenBucket] = {}
        self._former: dict[bytes, TokenBucket] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        """Return the number of known networks."""
        return len(self._recent) + len(self._former)

    def allow(self, address: bytes, now: float) -> bool:
        """Take a token of an address's network (4 or 16 bytes); return whether there was one."""
        if now >= self._sweep_at:
            self._sweep(now)
        network = network_of(address)
        bucket = self._recent.get(network) or self._former.pop(network, None)
        if bucket is None:
            if len(self) >= MOST_NETWORKS:
                return False
            bucket = TokenBucket(self._rate, self._burst)
        self._recent[network] = bucket
        return bucket.take(now)

    def clear(self) -> None:
        """Forget all networks."""
        self._recent, self._former = {}, {}

    def _sweep(self, now: float) -> None:
        """Forget the networks that have sent nothing since the last sweep."""
        is_late = now - self._sweep_at >= SECONDS_BETWEEN_SWEEPS
        self._former, self._recent = {} if is_late else self._recent, {}
        self._sweep_at = now + SECONDS_BETWEEN_SWEEPS
