"""PROBEs that are out, and what their ECHOes say: the path works both ways, how far it is, what fits through it.

    asked     a PROBE goes out somewhere: its token, when, how long, what for
    echoed    the ECHO with that token came back where the probe had gone: answered, once; the round trip is measured.
              Come back elsewhere it is no answer, and the probe stays out: it says nothing of the path tried.
    expired   unanswered for three smoothed round trips, 1 s at least and 5 s at most: given up

"Where" is any hashable that the caller compares paths by: an endpoint, a connection. The probe moves no endpoint.
At most 16 are out; the oldest is given up for the next. Lengths are bytes of UDP payload, times seconds of the
caller's clock. Round trip: RFC 6298, section 2.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from vpntun.types import NEVER

Purpose = Literal["size", "doubt", "carrier", "health"]
"""What a probe is for: path MTU search, does the length in use still pass, trial of another carrier, is the peer there
(with the round trip)."""

MOST_OUT = 16
SHORTEST_TIMEOUT = 1.0
LONGEST_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A probe that went out."""

    where: Hashable
    purpose: Purpose
    size: int
    at: float


class Probes:
    """PROBEs of one peer that have not been answered, and the round trips of those that were.

    round_trip     the smoothed round trip on this path, in seconds; 0 while unknown
    last           the last round trip, in seconds, on whichever path; 0 while unknown
    measured_at    when that was measured
    """

    def __init__(self) -> None:
        self.round_trip = 0.0
        self.last = 0.0
        self.measured_at = -NEVER
        self._out: dict[int, Asked] = {}

    @property
    def timeout(self) -> float:
        """Seconds after which a probe is given up."""
        if not self.round_trip:
            return LONGEST_TIMEOUT
        return min(LONGEST_TIMEOUT, max(SHORTEST_TIMEOUT, 3 * self.round_trip))

    @property
    def deadline(self) -> float:
        """When the oldest probe is to be given up."""
        oldest = next(iter(self._out.values()), None)
        return NEVER if oldest is None else oldest.at + self.timeout

    def asked(self, where: Hashable, purpose: Purpose, size: int, now: float) -> int:
        """Note a probe that goes out, and return the token to send in it. If too many are out, drop the oldest."""
        token = secrets.randbits(64)
        if len(self._out) >= MOST_OUT:
            del self._out[next(iter(self._out))]
        self._out[token] = Asked(where, purpose, size, now)
        return token

    def echoed(self, token: int, where: Hashable, now: float) -> Asked | None:
        """Return the probe that an ECHO from there answers, which is out no more; None if it answers none."""
        asked = self._out.get(token)
        if asked is None or asked.where != where:
            return None
        del self._out[token]
        self.last, self.measured_at = max(now - asked.at, 1e-6), now
        if self.round_trip:
            self.round_trip += (self.last - self.round_trip) / 8
        else:
            self.round_trip = self.last
        return asked

    def waiting(self, purpose: Purpose) -> bool:
        """Whether a probe of this purpose is out."""
        return any(asked.purpose == purpose for asked in self._out.values())

    def give_up_late(self, now: float) -> None:
        """Give up every probe whose time is over."""
        timeout = self.timeout
        self._out = {token: asked for token, asked in self._out.items() if asked.at + timeout > now}

    def moved(self) -> None:
        """Forget the round trip: the path is another now."""
        self.round_trip = 0.0
