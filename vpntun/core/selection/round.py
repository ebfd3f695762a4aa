"""One round through the addresses of a name: each once, a quarter of a second apart.

This is RFC 8305, section 5, for handshakes and for dials. An address that does not answer costs a quarter of a second
instead of a timeout, and one that answers within that time is the only one to be asked. On a path with a longer round
trip the gap is longer, so that addresses behind the one that will answer are not asked in vain.

The limit is 8: that many initiations in a round, which takes at least 5 s, and that many dials under way. So a name
with any number of addresses makes a client send next to nothing to others.

The copies of an initiation are one handshake (core/wireguard/peer.py): only the first to arrive is answered. If that
answer is lost on the way, no other comes, so each round begins with another address than the one before it.
"""

from __future__ import annotations

from vpntun.types import NEVER

GAP, LONGEST_GAP = 0.25, 1.0
ROUND_TRIPS = 2.0
"""The gap in round trips, where the last one is known."""
MOST_AT_ONCE = 8


class Round:
    """The present round on one carrier. `left`: addresses not asked yet. `next_at`: when to ask the next one."""

    def __init__(self) -> None:
        self.left = 0
        self.next_at = NEVER
        self._turn = self._began = 0

    def begin(self, addresses: int, left: int) -> None:
        """Begin a round in which `left` of these addresses are asked. None is due before the first was asked."""
        self.left = left
        self.next_at = NEVER
        if addresses and self._turn // addresses != self._began // addresses:
            self._turn += 1
        self._began = self._turn

    def next(self, addresses: int) -> int:
        """Return the index of the address to ask next."""
        index = self._turn % addresses
        self._turn += 1
        return index

    def asked(self, now: float, round_trip: float) -> None:
        """Note that an address was asked. `round_trip`: that of the last handshake, in seconds, or 0."""
        self.left = max(0, self.left - 1)
        self.next_at = now + min(max(GAP, ROUND_TRIPS * round_trip), LONGEST_GAP) if self.left else NEVER

    def end(self) -> None:
        """Ask no further address."""
        self.left = 0
        self.next_at = NEVER
