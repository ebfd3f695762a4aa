"""Whether this program is what limits a link, and not the path: the device has more waiting, the loop hardly sleeps.

Two shares, smoothed over the times between REPORTs:

    of the records, those after which the device had another packet
    of the time, what the loop waited

After a second without a record the next time counts alone: what was slept until then says nothing.
"""

from __future__ import annotations

SMOOTHING = 0.5
LEAST_BACKLOG = 0.25
MOST_SLEEP = 0.5


class Bottleneck:
    """The host adds to `backlogged`, of records, and `slept`, in seconds. Records are counted by counter."""

    __slots__ = ("_backlog_share", "_since", "_since_counter", "_sleep_share", "_weight", "backlogged", "slept")

    def __init__(self, now: float) -> None:
        self.backlogged = 0
        self.slept = 0.0
        self._backlog_share = 0.0
        self._sleep_share = 1.0
        self._weight = 1.0
        self._since = now
        self._since_counter = 0

    @property
    def is_busy(self) -> bool:
        """Whether the loop hardly sleeps."""
        return self._sleep_share <= MOST_SLEEP

    @property
    def is_here(self) -> bool:
        """Whether it hardly sleeps and the device has more waiting than leaves."""
        return self._backlog_share >= LEAST_BACKLOG and self.is_busy

    def measure(self, counter: int, now: float) -> None:
        """Take what was added since the last time, up to the record before `counter`."""
        records, time = counter - self._since_counter, now - self._since
        if records <= 0 or time <= 0:
            return
        weight, self._weight = self._weight, SMOOTHING
        self._backlog_share += (min(1.0, self.backlogged / records) - self._backlog_share) * weight
        self._sleep_share += (min(1.0, self.slept / time) - self._sleep_share) * weight
        self._begin(counter, now)

    def rested(self, counter: int, now: float) -> None:
        """Nothing was sent for a while, and now the record `counter` is: the next measurement counts alone."""
        self._sleep_share = self._weight = 1.0
        self._begin(counter, now)

    def _begin(self, counter: int, now: float) -> None:
        self._since, self._since_counter = now, counter
        self.backlogged = 0
        self.slept = 0.0
