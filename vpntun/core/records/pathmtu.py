"""Search for the longest UDP payload that the path takes: upward by PROBE, down at once on failure.

    start, moved      1,200 bytes are assumed to pass, with DF clear, and the search begins
    search            first the lengths of common links, as far as they are still possible (an MTU of 1500 bytes, then
                      9000, the loopback's, PPPoE's and other tunnels'); then the middle of the remaining range, until
                      7 bytes or fewer remain. Each length is probed 3 times, a second apart. After the first that does
                      not pass, 1,200 itself is probed, each time with a small PROBE behind it (`probes_base`)
    echoed            the path takes that length: it is used from now on, with DF set, however late the ECHO comes
    refused           this host will not send that length (EMSGSIZE, EINVAL): it is excluded. If it was in use, fall
                      back to 1,200, with DF clear, and search below it
    vanished          bursts or long datagrams vanish while a small PROBE is echoed: a black hole. The same as refused
    done              10 min later, search upward again in case the path has become wider

DF is clear until a length has passed, so that routers fragment what is longer than they take: on a path of 576 bytes
nothing is lost meanwhile.

If not even 1,200 bytes pass (refused or vanished, or only small PROBEs are echoed), `needs_fragmentation` is set. Then
messages are sent uncut, with DF clear, for IP to fragment. After 10 min, 1,200 is probed again.

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
    """The search on one path. Attributes:

    payload     bytes usable now
    is_proven   whether datagrams of `payload` bytes are known to pass with DF set
    needs_fragmentation
                whether to send uncut messages for IP to fragment: the path takes less than 1,200
    deadline    when `probe` has a length to return
    """

    def __init__(self, now: float, *, ipv6: bool = False) -> None:
        self.payload = BASE
        self.is_proven = self.needs_fragmentation = False
        self.deadline = now
        self._again_at = NEVER
        self._too_long = LARGEST + 1
        self._base_is_tried = False
        self._small_pass = False  # since the base is probed
        self.moved(now, ipv6=ipv6)

    def moved(self, now: float, *, ipv6: bool = False) -> None:
        """Start again, on another path."""
        self.payload = BASE
        self.is_proven = self.needs_fragmentation = False
        self._common = COMMON_V6 if ipv6 else COMMON_V4
        self._probed = 0
        self._tries = 0
        self._largest_probed = 0
        self._search_below(LARGEST + 1, now)

    @property
    def probes_base(self) -> bool:
        """Whether 1,200 bytes are being probed, so that it matters whether small PROBEs are echoed."""
        return self._probed == BASE and not self.needs_fragmentation

    def probe(self, now: float) -> int | None:
        """Return the length of the PROBE to send now, or None. If this host refuses it, `refused` makes another due."""
        if now < self.deadline:
            return None
        if self.deadline >= self._again_at:
            self._search_below(LARGEST + 1, now)
        if self._probed and self._tries >= TRIES:
            if not self.probes_base:
                self._exclude(self._probed)
            elif self._small_pass:
                self._give_up(now)
                return None
            self._probed = 0
        if not self._probed:
            self._probed = self._next()
            self._tries = 0
            if self.probes_base:
                self._base_is_tried, self._small_pass = True, False
            if not self._probed:
                self.deadline = self._again_at = now + AGAIN_AFTER
                return None
        self._tries += 1
        self._largest_probed = max(self._largest_probed, self._probed)
        self.deadline = now + PAUSE
        return self._probed

    def echoed(self, size: int, now: float) -> None:
        """Note that a PROBE of this length was echoed, perhaps late."""
        if not BASE <= size <= self._largest_probed:
            self._small_pass |= size < BASE
            return
        self.needs_fragmentation = False
        self.is_proven = True
        self.payload = max(self.payload, size)
        if self._too_long <= size:
            self._too_long = size + 1
        if size >= self._probed:
            self._probed = 0
            self.deadline = min(self.deadline, now)

    def refused(self, size: int, now: float) -> None:
        """Note that this host will not send that length, of a PROBE or of a burst."""
        if size <= BASE:
            self._give_up(now)
        elif size <= self.payload:
            self.payload = BASE
            self.is_proven = False
            self._search_below(size, now)
        elif size < self._too_long:
            self._exclude(size)
            self.deadline = min(self.deadline, now)

    def vanished(self, now: float) -> None:
        """Note that records of the length in use vanish, while a small PROBE is echoed."""
        self.refused(self.payload, now)

    def _give_up(self, now: float) -> None:
        """Let IP fragment: not even the base passes."""
        self.payload = BASE
        self.is_proven = False
        self.needs_fragmentation = True
        self._probed = 0
        self._too_long = BASE
        self.deadline = self._again_at = now + AGAIN_AFTER

    def _search_below(self, too_long: int, now: float) -> None:
        self._too_long = too_long
        self._base_is_tried = False
        self._probed = 0
        self._again_at = NEVER
        self.deadline = now

    def _exclude(self, size: int) -> None:
        """Exclude this length, and those above it, from the search."""
        self._too_long = size
        if self._probed >= size:
            self._probed = 0

    def _next(self) -> int:
        """Return the length to probe next, longer than the one in use and shorter than what is too long; 0 for none."""
        if self.needs_fragmentation:
            return BASE if self._too_long > BASE else 0
        if self._too_long <= LARGEST and not (self.is_proven or self._base_is_tried):
            return BASE
        for size in self._common:
            if self.payload < size < self._too_long:
                return size
        if self._too_long - self.payload <= GRAIN:
            return 0
        return (self.payload + self._too_long) // 2
