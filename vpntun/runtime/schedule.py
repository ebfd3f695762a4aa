"""When which of many links has something to do: the earliest of their deadlines, without asking each of them each turn.

    touched    a link that sent, received or decided something may have a nearer deadline: it is asked once a turn
    the heap   holds for each link a time no later than its deadline. A deadline that has moved away is found out when
               its time comes to the top, before the loop sleeps for long: nothing is woken for nothing
    outdated   a nearer deadline leaves the link's former entry in the heap, perhaps for minutes. Where most of the
               heap is such, it is made anew: links that something happens to all the time take no more room for that

A link whose handler raises is tried again after a second, so that it cannot starve the others.

A turn costs as much as the links that it touched, however many there are, and mostly nothing: what was found less than
50 ms ago serves as long as nothing is touched.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Protocol

from vpntun.errors import VpntunError
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.types import NEVER

FEWEST_TO_TIDY = 16
"""Entries that are not worth the work."""
FRESH = 0.05
"""Seconds for which what was found serves."""
REST = 1.0
"""Seconds until something that has failed is asked to do what is due again."""


class Timed(Protocol):
    """What has a deadline."""

    touched: bool
    """Whether it waits to be asked for its deadline; set by `touch`, cleared here."""

    @property
    def deadline(self) -> float:
        """Its next, in seconds of the loop's clock; infinite for none."""

    def handle_deadline(self) -> None:
        """Do what is due."""


class Schedule:
    """The deadlines of all links. Times are seconds of the loop's clock."""

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
        """Its deadline may be nearer than it was."""
        if not timed.touched:
            timed.touched = True
            self._touched.append(timed)

    def forget(self, timed: Timed) -> None:
        """It is no more."""
        self._listed.pop(timed, None)
        self._resting.pop(timed, None)
        self._touched = [each for each in self._touched if each is not timed]
        timed.touched = True  # so that nothing that still refers to it lists it again

    def deadline(self, now: float = NEVER) -> float:
        """The earliest of all; too early, perhaps, if it was found less than 50 ms ago with nothing touched since."""
        if now < self._fresh_until and not self._touched:
            return self._found
        self._fresh_until = now + FRESH
        self._found = self._find(now)
        return self._found

    def handle(self, now: float) -> None:
        """Let everything that is due do what it has to."""
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
        """Its entry is at the top, and has come too early."""
        self._listed[timed] = deadline
        heapq.heapreplace(self._heap, (deadline, next(self._order), timed))
