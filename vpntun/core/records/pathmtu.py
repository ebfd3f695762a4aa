"""How long a UDP payload the path takes: searched upward by PROBE, down at once when the path says no.

    start, moved      1,200 bytes are taken for granted, and the search begins
    search            first the lengths that links have (an MTU of 1500 bytes, then 9000, the loopback's, PPPoE's and
                      other tunnels'), of those that are still in question; then half-way, until no more than 7 bytes
                      are. Each length is asked 3 times, a second apart.
    echoed            the path takes that length: used from now on, whenever the echo comes
    refused           this host will not send that length (EMSGSIZE, EINVAL): it is out of question; was it in use,
                      back to 1,200 and search below it
    vanished          bursts, or long datagrams, vanish while a small PROBE is echoed: a black hole. The same as refused
    done              10 min later upward again, in case the path has become wider

Not even 1,200 bytes (refused or vanished): `needs_fragmentation` is set. Then messages go whole, with DF clear, for IP
to fragment; after 10 min 1,200 is asked for again.

All lengths are bytes of UDP payload: a whole WireGuard message. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.types import NEVER

BASE = 1200
TRIES = 3
PAUSE = 1.0
AGAIN_AFTER = 600.0
GRAIN = 8

COMMON_V4 = (1472, 8972, 65507, 1464, 1432, 1392)
COMMON_V6 = (1452, 8952, 65488, 1444, 1412, 1372)
"""Path MTU less 28 or 48 bytes of headers: 1500, 9000, loopback, then 1492 (PPPoE), 1460 and 1420 (tunnels, clouds)."""

LARGEST = 65507


class PathMtu:
    """One path's. Attributes:

    payload     bytes usable now
    needs_fragmentation
                send whole messages for IP to fragment: the path takes less than 1,200
    deadline    when `probe` has something to ask
    """

    def __init__(self, now: float, *, ipv6: bool = False) -> None:
        self.payload = BASE
        self.needs_fragmentation = False
        self.deadline = now
        self._again_at = NEVER
        self._too_long = LARGEST + 1
        self.moved(now, ipv6=ipv6)

    def moved(self, now: float, *, ipv6: bool = False) -> None:
        """Another path: begin anew."""
        self.payload = BASE
        self.needs_fragmentation = False
        self._common = COMMON_V6 if ipv6 else COMMON_V4
        self._asked = 0
        self._tries = 0
        self._largest_asked = 0
        self._search_below(LARGEST + 1, now)

    def probe(self, now: float) -> int | None:
        """The length to send a PROBE of now, or None. A refusal is told by `refused`, and then there is another."""
        if now < self.deadline:
            return None
        if self.deadline >= self._again_at:
            self._search_below(LARGEST + 1, now)
        if self._asked and self._tries >= TRIES:
            if self._asked <= self.payload and not self.needs_fragmentation:
                self.refused(self.payload, now)
                if self.needs_fragmentation:
                    return None
            else:
                self._out_of_question(self._asked)
        if not self._asked:
            self._asked = self._next()
            self._tries = 0
            if not self._asked:
                self.deadline = self._again_at = now + AGAIN_AFTER
                return None
        self._tries += 1
        self._largest_asked = max(self._largest_asked, self._asked)
        self.deadline = now + PAUSE
        return self._asked

    def echoed(self, size: int, now: float) -> None:
        """A PROBE of this length was echoed, be it late."""
        if not BASE <= size <= self._largest_asked:
            return
        self.needs_fragmentation = False
        self.payload = max(self.payload, size)
        if self._too_long <= size:
            self._too_long = size + 1
        if size >= self._asked:
            self._asked = 0
            self.deadline = min(self.deadline, now)

    def refused(self, size: int, now: float) -> None:
        """This host will not send that length, a PROBE's or a burst's."""
        if size <= BASE:
            self._give_up(now)
        elif size <= self.payload:
            self.payload = BASE
            self._search_below(size, now)
        elif size < self._too_long:
            self._out_of_question(size)
            self.deadline = min(self.deadline, now)

    def vanished(self, now: float) -> None:
        """Bursts of the length in use vanish, but a small PROBE is echoed."""
        self.refused(self.payload, now)

    def _give_up(self, now: float) -> None:
        """Not even the base passes."""
        self.payload = BASE
        self.needs_fragmentation = True
        self._asked = 0
        self._too_long = BASE
        self.deadline = self._again_at = now + AGAIN_AFTER

    def _search_below(self, too_long: int, now: float) -> None:
        self._too_long = too_long
        self._asked = 0
        self._again_at = NEVER
        self.deadline = now

    def _out_of_question(self, size: int) -> None:
        self._too_long = size
        if self._asked >= size:
            self._asked = 0

    def _next(self) -> int:
        """The length to ask for next, longer than what is used and shorter than what is too long; 0: none."""
        if self.needs_fragmentation:
            return BASE if self._too_long > BASE else 0
        for size in self._common:
            if self.payload < size < self._too_long:
                return size
        if self._too_long - self.payload <= GRAIN:
            return 0
        return (self.payload + self._too_long) // 2
