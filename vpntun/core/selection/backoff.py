"""How long to wait before the next try: a quarter of how long it has not worked, with jitter, never above a cap.

That is an exponential back-off that needs no counter, so nothing can overflow, and whose promise is easy to say: a
peer that comes back after an outage is found again within a quarter of the outage, and within 40 s after any. With
several addresses to try in turn the cap is shared among them, so that the promise holds whichever of them works.
"""

from __future__ import annotations

import random

CAP = 32.0
SHARE = 0.25
JITTER = 0.25


def pause(outage: float, least: float, rng: random.Random, *, addresses: int = 1) -> float:
    """Seconds to wait: `outage` is the time in seconds since the search began, `least` the shortest pause."""
    return max(least, min(CAP / max(1, addresses), outage * SHARE)) * rng.uniform(1, 1 + JITTER)
