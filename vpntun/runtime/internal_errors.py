"""Last line of defence against bugs: an unexpected exception ends one callback, not the tunnel.

    counted      as "internal error" among the drops that `vpntun show` prints
    logged       with its traceback, at most three times in ten seconds
    cleaned up   half-finished work is dropped, so that no packet is sent to the wrong peer

The loop calls `note` for every exception except VpntunError. A VpntunError is not a bug: it ends the tunnel with a
message for the operator.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from vpntun.runtime.clock import boottime
from vpntun.runtime.log import LineLimit

NAME = "internal error"
MOST_TRACEBACKS = 3


class InternalErrors:
    """Counter and logger of unexpected exceptions; they are counted in `drops`."""

    def __init__(self, drops: Counter[str] | None = None, clock: Callable[[], float] = boottime) -> None:
        self._recovery: list[Callable[[], object]] = []
        self._drops: Counter[str] = Counter() if drops is None else drops
        self._limit = LineLimit(MOST_TRACEBACKS, clock)

    @property
    def count(self) -> int:
        """Number of internal errors so far."""
        return self._drops[NAME]

    def recover_by(self, *steps: Callable[[], object]) -> None:
        """Register functions that drop half-finished work; they are called after each internal error."""
        self._recovery += steps

    def note(self) -> None:
        """Count and log the current exception, then run the recovery functions. Raises nothing."""
        self._drops[NAME] += 1
        self._log()
        for step in self._recovery:
            try:
                step()
            except Exception:
                self._log()

    def _log(self) -> None:
        self._limit.log(logging.ERROR, "internal error, please report it; the tunnel keeps running", traceback=True)
