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
    """The probes of one peer. `round_trip` and `variation` are smoothed seconds, `shortest` the least; 0: unknown.

    `last`: the last round trip, in seconds, on whichever path; `measured_at`: when.
    """

    def __init__(self) -> None:
        self.round_trip = 0.0
        self.variation = 0.0
        self.shortest = 0.0
        self.last = 0.0
        self.measured_at = -NEVER
        self._out: dict[int, Asked] = {}
        self._given_up: list[Asked] = []

    @property
    def timeout(self) -> float:
        """Seconds after which a probe is given up."""
        if not self.round_trip:
            return LONGEST_TIMEOUT
        return min(LONGEST_TIMEOUT, max(SHORTEST_TIMEOUT, 3 * self.round_trip))

    @property
    def deadline(self) -> float:
        """When `expired` will have something."""
        if self._given_up:
            return -NEVER
        oldest = next(iter(self._out.values()), None)
        return NEVER if oldest is None else oldest.at + self.timeout

    def asked(self, where: Hashable, purpose: Purpose, size: int, now: float) -> int:
        """A probe goes out there; the token to send in it."""
        token = secrets.randbits(64)
        if len(self._out) >= MOST_OUT:
            self._given_up.append(self._out.pop(next(iter(self._out))))
            del self._given_up[:-MOST_OUT]
        self._out[token] = Asked(where, purpose, size, now)
        return token

    def echoed(self, token: int, where: Hashable, now: float) -> Asked | None:
        """An ECHO came from there. The probe that it answers, which is out no more; None: it answers none."""
        asked = self._out.get(token)
        if asked is None or asked.where != where:
            return None
        del self._out[token]
        self.last, self.measured_at = max(now - asked.at, 1e-6), now
        self._measured(self.last)
        return asked

    def waiting(self, purpose: Purpose) -> bool:
        """Whether a probe of this purpose is out."""
        return any(asked.purpose == purpose for asked in self._out.values())

    def expired(self, now: float) -> list[Asked]:
        """The probes that are given up now, oldest first; each is told once."""
        given_up, self._given_up = self._given_up, []
        timeout = self.timeout
        late = [token for token, asked in self._out.items() if asked.at + timeout <= now]
        return given_up + [self._out.pop(token) for token in late]

    def moved(self) -> None:
        """Another path from now on: what is known of the old one's length says nothing."""
        self.round_trip = self.variation = self.shortest = 0.0

    def _measured(self, sample: float) -> None:
        if not self.round_trip:
            self.round_trip, self.variation, self.shortest = sample, sample / 2, sample
            return
        self.variation += (abs(sample - self.round_trip) - self.variation) / 4
        self.round_trip += (sample - self.round_trip) / 8
        self.shortest = min(self.shortest, sample)
