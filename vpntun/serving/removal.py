"""Watch for the removal of a file, such as a socket by whose name others find this process (inotify(7)).

A bound socket keeps its file alive, so the kernel does not announce its end but only the change of its link count. The
watch therefore looks after each announcement whether the file still has its name.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vpntun.runtime.loop import Loop
from vpntun.serving.listening import identity_of

IN_ATTRIB, IN_MOVE_SELF, IN_DELETE_SELF = 0x4, 0x800, 0x400
READ_SIZE = 4096

_libc = ctypes.CDLL(None, use_errno=True)


class RemovalWatch:
    """Watch of one file, until `close`. Raises OSError if it cannot be watched."""

    def __init__(self, path: Path, loop: Loop, on_removed: Callable[[], None]) -> None:
        """`on_removed` is called once, in the loop, when the name is gone or belongs to another file."""
        self._path = path
        self._loop = loop
        self._on_removed = on_removed
        self._identity = identity_of(path)
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            events = IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF
            _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(path), events))
        except OSError:
            os.close(self._descriptor)
            raise
        loop.watch(self._descriptor, self._look)

    def close(self) -> None:
        """Stop watching."""
        self._loop.forget(self._descriptor)
        os.close(self._descriptor)

    def _look(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._descriptor, READ_SIZE)
        if not self._has_its_name():
            self._loop.forget(self._descriptor)
            self._on_removed()

    def _has_its_name(self) -> bool:
        with suppress(FileNotFoundError):
            return identity_of(self._path) == self._identity
        return False


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
