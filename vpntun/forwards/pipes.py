"""Pipes in which the kernel keeps bytes between two sockets, handed out only while there are bytes in them.

The kernel limits the pipes of an ordinary user (pipe(7), /proc/sys/fs/pipe-user-pages-soft): beyond that a pipe has
room for two pages, and cannot be made larger. So pipes have the usual size, and only a connection whose receiver takes
no more keeps one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import NamedTuple

MOST_SPARE = 8


class Pipe(NamedTuple):
    """Descriptors of a non-blocking pipe."""

    reader: int
    writer: int


class PipePool:
    """Empty pipes for all connections of a loop, made on demand."""

    def __init__(self) -> None:
        self._spare: list[Pipe] = []

    def take(self) -> Pipe:
        """Return an empty pipe. Raises OSError where the process or the system has no room for another one."""
        return self._spare.pop() if self._spare else Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))

    def give_back(self, pipe: Pipe) -> None:
        """Take a pipe back that is empty."""
        if len(self._spare) < MOST_SPARE:
            self._spare.append(pipe)
        else:
            self.discard(pipe)

    def discard(self, pipe: Pipe) -> None:
        """Close a pipe, with the bytes in it."""
        for descriptor in pipe:
            with suppress(OSError):
                os.close(descriptor)

    def close(self) -> None:
        """Close the pipes that are not handed out."""
        while self._spare:
            self.discard(self._spare.pop())
