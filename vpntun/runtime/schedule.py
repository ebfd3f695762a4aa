"""Schedule of many links' deadlines: finds the earliest without asking every link in every turn.

    touched    a link that sent, received or decided something may have an earlier deadline: it is asked once a turn
    heap       has for each link a time no later than its deadline. A deadline that moved to a later time is noticed
               when the old time reaches the top of the heap, before the loop sleeps: no wake-up is wasted on it
    outdated   when a deadline becomes earlier, the link's former entry stays in the heap, perhaps for minutes. Once
               most entries are outdated the heap is rebuilt, so busy links do not make it grow

A link whose handler raises is tried again after a second, so that it cannot starve the others.

The cost of a turn depends on the number of touched links, not on the number of all links. Usually there is none: as
long as no link is touched, the earliest deadline is reused for 50 ms.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

from vpntun.errors import VpntunError
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.types import NEVER

FEWEST_TO_TIDY = 16
"""Number of entries below which a heap is not worth rebuilding."""
FRESH = 0.05
"""Time for which the earliest deadline is reused, in seconds."""
REST = 1.0
"""Time until a link whose handler failed is called again, in seconds."""


class Timed(Protocol):
    """Anything with a deadline, such as a link."""

    touched: bool
    """Whether its deadline will be read in the next turn; set and cleared by the schedule alone."""

    @property
    def deadline(self) -> float:
        """Time of its next deadline on the loop's clock, infinite if it has none."""

    def handle_deadline(self) -> None:
        """Do what is due."""


class Schedule:
    """Deadlines of all links. Times are seconds on the loop's clock."""

    def __init__(self, internal_errors: InternalErrors | None = None) -> None:
        self._internal_errors = internal_errors or InternalErrors()
        self._resting: dict[Timed, float] = {}
        self._heap: list[tuple[float, int, Timed]] = []
        self._listed: dict[Timed, float] = {}
        self._touched: list[Timed] = []
        self._order = itertools.count()
        self._found = NEVER
        self._fresh_until = 0.0

    def touch(self, timed: Timed) -> None:
        """Note that a deadline may have become earlier."""
        if not timed.touched:
            timed.touched = True
            self._touched.append(timed)

    def forget(self, timed: Timed) -> None:
        """Remove a link that no longer exists."""
        self._listed.pop(timed, None)
        self._resting.pop(timed, None)
        self._touched = [each for each in self._touched if each is not timed]
        timed.touched = True  # a later `touch` by leftover references must not list it again

    def deadline(self, now: float = NEVER) -> float:
        """Return the earliest deadline. If no link was touched, it may be up to 50 ms old, and so too early."""
        if now < self._fresh_until and not self._touched:
            return self._found
        self._fresh_until = now + FRESH
        self._found = self._find(now)
        return self._found

    def handle(self, now: float) -> None:
        """Call the handler of every link whose deadline has come."""
        self._fresh_until = 0.0
        while self._heap and self._heap[0][0] <= now:
            time, _, timed = heapq.heappop(self._heap)
            if self._listed.get(timed) == time:
                del self._listed[timed]
                self._resting.pop(timed, None)
                self.touch(timed)
                if self._deadline_of(timed, now) <= now:
                    self._let_handle(timed, now)

    def _let_handle(self, timed: Timed, now: float) -> None:
        try:
            timed.handle_deadline()
        except VpntunError:
            raise
        except Exception:
            self._internal_errors.note()
            self._resting[timed] = now + REST

    def _deadline_of(self, timed: Timed, now: float) -> float:
        try:
            deadline = timed.deadline
        except Exception:
            self._internal_errors.note()
            self._resting[timed] = deadline = now + REST
        return max(deadline, self._resting.get(timed, deadline)) if self._resting else deadline

    def _find(self, now: float) -> float:
        self._ask_touched(now)
        heap, listed = self._heap, self._listed
        while heap:
            time, _, timed = heap[0]
            if listed.get(timed) != time:
                heapq.heappop(heap)
            elif (actual := self._deadline_of(timed, now)) > time:
                self._relist(timed, actual)
            else:
                return time
        return NEVER

    def _ask_touched(self, now: float) -> None:
        touched, self._touched = self._touched, []
        for timed in touched:
            timed.touched = False
            deadline = self._deadline_of(timed, now)
            time = self._listed.get(timed, NEVER)
            if deadline < time:
                self._list(timed, deadline)
            elif self._heap and self._heap[0][2] is timed and deadline > time:
                self._relist(timed, deadline)

    def _list(self, timed: Timed, deadline: float) -> None:
        self._listed[timed] = deadline
        heapq.heappush(self._heap, (deadline, next(self._order), timed))
        if len(self._heap) > FEWEST_TO_TIDY + 2 * len(self._listed):
            self._heap = [(time, next(self._order), timed) for timed, time in self._listed.items()]
            heapq.heapify(self._heap)

    def _relist(self, timed: Timed, deadline: float) -> None:
        """Replace the top entry of the heap, which is this link's and too early."""
        self._listed[timed] = deadline
        heapq.heapreplace(self._heap, (deadline, next(self._order), timed))
