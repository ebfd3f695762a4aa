"""Detection of links that this program limits, rather than the path.

It does where the device has more packets waiting and the event loop, here or at the peer, hardly sleeps. Three shares
are measured between two REPORTs:

    backlog      of the records, those after which the device had another packet
    sleep        of the time, the part that this loop waited
    peer busy    of the time, the part that the peer's loop did not wait, from its REPORT
"""

from __future__ import annotations

LEAST_BACKLOG = 0.5
MOST_SLEEP = 0.5
LEAST_BUSY_PEER = 0.75


class Bottleneck:
    """Shares of one link. The data path adds to `backlogged` (records) and `slept` (seconds)."""

    __slots__ = ("_backlog_share", "_peer_busy", "_since", "_since_counter", "_sleep_share", "backlogged", "slept")

    def __init__(self, now: float) -> None:
        self._backlog_share = 0.0
        self._sleep_share = 1.0
        self._peer_busy = 0.0
        self._begin(0, now)

    @property
    def is_here(self) -> bool:
        """Whether packets wait in the device and this end or the peer hardly sleeps."""
        does_work = self._sleep_share <= MOST_SLEEP or self._peer_busy >= LEAST_BUSY_PEER
        return does_work and self._backlog_share >= LEAST_BACKLOG

    def measure(self, counter: int, peer_busy: float, now: float) -> None:
        """Measure the shares since the last call, up to the record before `counter`.

        `peer_busy`: the peer's share, from its REPORT.
        """
        records, time = counter - self._since_counter, now - self._since
        if records <= 0 or time <= 0:
            return
        self._backlog_share = min(1.0, self.backlogged / records)
        self._sleep_share = min(1.0, self.slept / time)
        self._peer_busy = peer_busy
        self._begin(counter, now)

    def rested(self, counter: int, now: float) -> None:
        """Discard the time in which nothing was sent, which tells nothing: the record `counter` is sent now."""
        self._begin(counter, now)

    def _begin(self, counter: int, now: float) -> None:
        self._since, self._since_counter = now, counter
        self.backlogged = 0
        self.slept = 0.0


class BusyMeter:
    """Meter of the share of time that this end's loop does not wait, for REPORTs."""

    __slots__ = ("_since", "_slept_before")

    def __init__(self, now: float) -> None:
        self._since = now
        self._slept_before = 0.0

    def share(self, now: float, slept: float) -> float:
        """Return the share since the last call. `slept`: seconds that the loop has waited since its start."""
        time, waited = now - self._since, slept - self._slept_before
        self._since, self._slept_before = now, slept
        return max(0.0, min(1.0, 1 - waited / time)) if time > 0 else 0.0
