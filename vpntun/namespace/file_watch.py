"""Watch for changes by which a mount of this mount namespace is lost, or a folder appears that needs one.

The kernel detaches what is mounted on a file or folder when another mount namespace removes or replaces it. It then
marks the list of mounts as changed (proc_pid_mountinfo(5)). A new folder is announced by inotify(7).
"""

from __future__ import annotations

import ctypes
import os
import select
from collections.abc import Callable, Sequence
from contextlib import suppress

from vpntun.runtime.loop import Loop

MOUNTS = "/proc/self/mountinfo"
IN_MOVED_TO, IN_CREATE = 0x80, 0x100
READ_SIZE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class ChangeWatch:
    """Watch of the mounts, and of new names in a few folders, for as long as this process runs."""

    def __init__(self, folders: Sequence[str], loop: Loop, on_change: Callable[[], None]) -> None:
        """Begin: the loop calls `on_change` after one or more changes. Folders may be missing. Raises OSError."""
        self._on_change = on_change
        self._mounts = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._names = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._either = select.epoll()
        self._either.register(self._mounts, select.EPOLLPRI)
        if self._names >= 0:  # each user may have so many watches; without one, later folders are not noticed
            for folder in folders:
                _libc.inotify_add_watch(self._names, os.fsencode(folder), IN_MOVED_TO | IN_CREATE)
            self._either.register(self._names, select.EPOLLIN)
        loop.watch(self._either.fileno(), self._look)

    def _look(self) -> None:
        self._either.poll(0)
        if self._names >= 0:
            with suppress(BlockingIOError):
                os.read(self._names, READ_SIZE)
        self._on_change()
