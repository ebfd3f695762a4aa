"""Into the background: the caller waits until it is known how the start went, and its exit status says it.

    the caller                           the daemon
    forks, and waits                     has a session of its own, no stdin, and the caller's stderr for now
    ends with the daemon's status    <-  what fails in the set-up is said there, and ends it
    0                                <-  all is set up and, with --wait, the link stands
    9                                <-  --wait is over; it goes on trying
    1                                    was told to stop before that
                                         from then on: no terminal, no folder, nothing but the log to speak to

SIGINT or SIGTERM to the caller ends the daemon first, then the caller.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vpntun.errors import NotInTime, VpntunError
from vpntun.runtime.loop import Loop

_ENDING = (signal.SIGINT, signal.SIGTERM)
_UP, _LATE = b"u", b"l"


class Background:
    """The daemon's side. `wait`: how many seconds the caller waits for the link; None: for the set-up alone."""

    def __init__(self, caller: int, wait: float | None) -> None:
        self._caller: int | None = caller
        self._wait = wait
        self._until = time.monotonic() + (wait or 0.0)

    @classmethod
    def enter(cls, wait: float | None = None) -> Background:
        """Fork: returns in the daemon alone. The caller leaves by SystemExit, NotInTime or VpntunError."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until the caller can end the daemon, too
        daemon = os.fork()
        if daemon:
            os.close(writer)
            _wait_for(daemon, reader, wait)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        os.close(reader)
        os.setsid()
        _give_up(0)
        return cls(writer, wait)

    def device_is_up(self, loop: Loop) -> None:
        """All is set up: enough for a caller who does not wait for the link."""
        if self._wait is None:
            self._release(_UP)
        else:
            loop.call_later(max(0.0, self._until - time.monotonic()), lambda: self._release(_LATE))

    def link_is_up(self) -> None:
        """A link stands."""
        self._release(_UP)

    def _release(self, word: bytes) -> None:
        """Let the caller go, once."""
        if self._caller is None:
            return
        with suppress(BrokenPipeError):
            os.write(self._caller, word)
        os.close(self._caller)
        self._caller = None
        os.chdir("/")
        _give_up(1)
        _give_up(2)


def _wait_for(daemon: int, reader: int, wait: float | None) -> None:
    """Leave with what the daemon says, or with how it ended."""
    with _ending_both(daemon):
        in_time = select.select([reader], [], [], wait)[0]
    word = os.read(reader, 1) if in_time else _LATE
    if word == _UP:
        sys.exit(0)
    if word == _LATE:
        raise NotInTime(f"no link within {wait:g} s; the daemon, process {daemon}, goes on trying")
    status = os.waitstatus_to_exitcode(os.waitpid(daemon, 0)[1])
    if status <= 0:
        how = f"ended by signal {-status}" if status else "told to stop"
        raise VpntunError(f"the daemon was {how} before it was ready")
    sys.exit(status)


@contextmanager
def _ending_both(daemon: int) -> Iterator[None]:
    """At SIGINT or SIGTERM, end the daemon cleanly and die of the same signal, so that a shell sees it."""

    def end(number: int, _frame: FrameType | None) -> None:
        os.kill(daemon, signal.SIGTERM)
        os.waitpid(daemon, 0)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    heard = [each for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN]
    former = {number: signal.signal(number, end) for number in heard}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def _give_up(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
