"""Whether this program is what limits a link, and not the path: the device has more waiting, and the loop of this end
hardly sleeps, or that of the other end.

Three shares, each of the time between two REPORTs:

    of the records, those after which the device had another packet
    of the time, what the loop waited
    of the time, what the other end's loop did not wait, as its REPORT tells
"""

from __future__ import annotations

LEAST_BACKLOG = 0.5
MOST_SLEEP = 0.5
LEAST_BUSY_PEER = 0.75


class Bottleneck:
    """The host adds to `backlogged`, of records, and `slept`, in seconds. Records are counted by counter."""

    __slots__ = ("_backlog_share", "_peer_busy", "_since", "_since_counter", "_sleep_share", "backlogged", "slept")

    def __init__(self, now: float) -> None:
        self._backlog_share = 0.0
        self._sleep_share = 1.0
        self._peer_busy = 0.0
        self._begin(0, now)

    @property
    def is_here(self) -> bool:
        """Whether the device has more waiting than leaves, and this end or the peer hardly sleeps."""
        does_work = self._sleep_share <= MOST_SLEEP or self._peer_busy >= LEAST_BUSY_PEER
        return does_work and self._backlog_share >= LEAST_BACKLOG

    def measure(self, counter: int, peer_busy: float, now: float) -> None:
        """Take what was added since the last time, up to the record before `counter`, and what the peer tells."""
        records, time = counter - self._since_counter, now - self._since
        if records <= 0 or time <= 0:
            return
        self._backlog_share = min(1.0, self.backlogged / records)
        self._sleep_share = min(1.0, self.slept / time)
        self._peer_busy = peer_busy
        self._begin(counter, now)

    def rested(self, counter: int, now: float) -> None:
        """Nothing was sent for a while, and now the record `counter` is: what was slept until then says nothing."""
        self._begin(counter, now)

    def _begin(self, counter: int, now: float) -> None:
        self._since, self._since_counter = now, counter
        self.backlogged = 0
        self.slept = 0.0
