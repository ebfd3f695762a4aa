"""Duties of process 1 of a container: it collects orphans, and ends at signals by handlers of its own.

Orphans of hooks become children of process 1, or of the nearest child subreaper, and stay zombies until it waits for
them. Any other process has children that it did not start, too, if a shell started them before it executed this
program. So every tunnel collects them, each time the kernel reports with SIGCHLD that a child has ended. A command that
child.py has started keeps its exit status: its own object waits for it. One that a thread beside the loop has started,
such as nft for `vpntun doctor`, is waited for by whoever comes first, so its status may be lost.

The kernel drops a signal to process 1 unless there is a handler (SIGNAL_UNKILLABLE, kernel/signal.c).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

MOST_AT_ONCE = 64

awaited: dict[int, Callable[[], object]] = {}
"""The commands whose exit status is still wanted: process ID, and a function that waits for it and keeps the status."""


def collect_orphans() -> bool:
    """Wait for children that have ended, without blocking. Return True if there may be more than MOST_AT_ONCE."""
    for _ in range(MOST_AT_ONCE):
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # which leaves it a zombie
        except ChildProcessError:
            return False
        if ended is None:
            return False
        wait = awaited.pop(ended.si_pid, None)
        if wait is not None:
            wait()
        else:
            with suppress(ChildProcessError):  # the thread that started it was faster
                os.waitpid(ended.si_pid, os.WNOHANG)
    return True


def ending_action() -> signal.Handlers | Callable[[int, FrameType | None], None]:
    """Return the action by which a signal ends this process at once; a shell reports the same status either way."""
    return _exit if os.getpid() == 1 else signal.SIG_DFL


def _exit(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
