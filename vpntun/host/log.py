"""The log: one line an event on stderr, `vpntun: INTERFACE: text`, nothing secret in it.

What a peer or a name server says may stand in a line, so control characters are escaped. Events that a stranger can
cause are limited in rate; the line that comes through says how many were held back.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

NOTICE = logging.WARNING + 5
SECONDS_BETWEEN = 10.0

logging.addLevelName(NOTICE, "NOTICE")
log = logging.getLogger("vpntun")


class OneLine(logging.Formatter):
    """Escapes whatever is not printable, so that a line stays one line and a terminal stays as it was."""

    def format(self, record: logging.LogRecord) -> str:
        """The whole line."""
        text = super().format(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def open_log(interface: str, verbosity: int) -> None:
    """Log to stderr: notices and warnings; with `verbosity` 1 what happens to the link as well, with 2 everything."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(f"vpntun: {interface.replace('%', '%%')}: %(message)s"))
    log.handlers = [handler]
    log.propagate = False
    log.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])


def notice(text: str, *arguments: object) -> None:
    """Say something that every operator wants to see."""
    log.log(NOTICE, text, *arguments)


class Limited:
    """One kind of line, at most once in ten seconds."""

    def __init__(self, level: int, text: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._level = level
        self._text = text
        self._clock = clock
        self._next_at = -float("inf")
        self._held_back = 0

    def __call__(self, *arguments: object) -> None:
        """Log it, or count it."""
        now = self._clock()
        if now < self._next_at:
            self._held_back += 1
            return
        more = f" ({self._held_back} more since the last such line)" if self._held_back else ""
        self._next_at = now + SECONDS_BETWEEN
        self._held_back = 0
        log.log(self._level, self._text + more, *arguments)
