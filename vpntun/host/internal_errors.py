"""The last line of defence: an exception that is a bug ends what was being handled, and not the tunnel.

    counted      as "internal error" among the drops, where `vpntun show` has it
    logged       with its traceback, at most three in ten seconds
    cleaned up   `recover` drops whatever the exception left half done, so that no packet goes where another belongs

The loop calls `note` for every exception but VpntunError: those are no bugs, and end the tunnel with a message.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

from vpntun.host.log import LineLimit

NAME = "internal error"
MOST_TRACEBACKS = 3


class InternalErrors:
    """Counts into `drops`. `recover` is called after each."""

    def __init__(self, drops: Counter[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.recover: Callable[[], None] = lambda: None
        self._drops: Counter[str] = Counter() if drops is None else drops
        self._limit = LineLimit(MOST_TRACEBACKS, clock)

    @property
    def count(self) -> int:
        """How many there were."""
        return self._drops[NAME]

    def note(self) -> None:
        """Count and log the exception that is being handled, and recover. Raises nothing."""
        self._drops[NAME] += 1
        self._log()
        try:
            self.recover()
        except Exception:
            self._log()

    def _log(self) -> None:
        self._limit.log(logging.ERROR, "internal error, please report it; the tunnel goes on", traceback=True)
