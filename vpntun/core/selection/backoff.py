"""The pause before the next try: a quarter of the outage so far, with jitter and a cap.

This is an exponential back-off without a counter, so nothing can overflow. It guarantees that a peer that comes back
after an outage is found again within a quarter of the outage's length, and always within 40 s. If there are more
addresses than a round can try (round.py), the rounds share the cap, so that the guarantee holds whichever of them
works.
"""

from __future__ import annotations

import random

CAP = 32.0
SHARE = 0.25
JITTER = 0.25


def pause(outage: float, least: float, rng: random.Random, *, rounds: int = 1) -> float:
    """Return the seconds to wait: `outage` is the seconds since the search began, `least` the shortest pause."""
    return max(least, min(CAP / max(1, rounds), outage * SHARE)) * rng.uniform(1, 1 + JITTER)
