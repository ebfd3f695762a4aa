"""The last line of defence: an exception that is a bug ends what was being handled, and not the tunnel.

    counted      as "internal error" among the drops, where `vpntun show` has it
    logged       with its traceback, at most three in ten seconds
    cleaned up   what the exception left half done is dropped, so that no packet goes where another belongs

The loop calls `note` for every exception but VpntunError: those are no bugs, and end the tunnel with a message.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from vpntun.runtime.log import LineLimit

NAME = "internal error"
MOST_TRACEBACKS = 3


class InternalErrors:
    """Counts into `drops`."""

    def __init__(self, drops: Counter[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._recovery: list[Callable[[], object]] = []
        self._drops: Counter[str] = Counter() if drops is None else drops
        self._limit = LineLimit(MOST_TRACEBACKS, clock)

    @property
    def count(self) -> int:
        """How many there were."""
        return self._drops[NAME]

    def recover_by(self, *steps: Callable[[], object]) -> None:
        """Call these, too, after each internal error: they drop what is half done."""
        self._recovery += steps

    def note(self) -> None:
        """Count and log the exception that is being handled, and recover. Raises nothing."""
        self._drops[NAME] += 1
        self._log()
        for step in self._recovery:
            try:
                step()
            except Exception:
                self._log()

    def _log(self) -> None:
        self._limit.log(logging.ERROR, "internal error, please report it; the tunnel goes on", traceback=True)
