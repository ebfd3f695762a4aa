"""Local UDP ports that a client calls from in one search: the one that worked last, and fresh ones.

A router that once forwarded a packet without NAT, as while it dials in again, keeps doing so for that port for as long
as packets come from there: the client's own tries keep the link down. So the fourth round of initiations comes from a
fresh port, and after ever longer times another one, where no port was asked for (carriers/udp.py).

The port that worked last gets every other round, in case a fresh one does not work: a router whose table is full may
know that port alone. One round goes from one port, since the peer answers only the first copy of an initiation.
"""

from __future__ import annotations

from vpntun.types import NEVER

SHORTEST, LONGEST = 10.0, 120.0
SHARE = 0.5


class Ports:
    """Ports of one search. `is_fresh`: whether the present round goes from a fresh port."""

    def __init__(self) -> None:
        self.is_fresh = False
        self._began = self._renewed_at = NEVER
        self._there_is_one = False

    def begin(self, now: float) -> None:
        """Begin a search, at the port that worked last."""
        self._began = self._renewed_at = now
        self.is_fresh = self._there_is_one = False

    def next_round(self) -> None:
        """Change between the two ports, if there are two."""
        self.is_fresh = self._there_is_one and not self.is_fresh

    def wants_another(self, now: float) -> bool:
        """Whether another fresh port is to be opened: this one has had half of the outage so far."""
        if now - self._renewed_at < max(SHORTEST, min(LONGEST, SHARE * (now - self._began))):
            return False
        self._renewed_at = now
        return True

    def renewed(self) -> None:
        """Have the next round come from a fresh port, which was opened."""
        self._there_is_one = True
        self.is_fresh = False
