"""Signals of a program with a terminal: those that end it become an exception, so that the terminal is restored.

SIGINT              Ctrl-C: the program ends with status 0
SIGTERM, SIGHUP     the program ends by the signal itself, as if it had not been caught
SIGTSTP, SIGWINCH   Ctrl-Z, and another size of the terminal: they wake the loop of the screen, which acts on them
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WAKING = (signal.SIGTSTP, signal.SIGWINCH)


class EndedBySignal(BaseException):
    """A signal that ends the program has come."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Leave this block when a signal of ENDING comes, and end the program by it, unless it was SIGINT.

    A signal that is ignored at the start, such as SIGHUP under nohup(1), stays ignored. Once the first has come, the
    others are ignored: they would interrupt the clean-up.
    """
    caught = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]

    def leave(number: int, _: FrameType | None) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise EndedBySignal(number)

    former = [(number, signal.signal(number, leave)) for number in caught]
    try:
        yield
    except EndedBySignal as ended:
        if ended.number != signal.SIGINT:
            signal.signal(ended.number, signal.SIG_DFL)
            os.kill(os.getpid(), ended.number)
    finally:
        for number, handler in former:
            signal.signal(number, handler)


@contextmanager
def waking_signals() -> Iterator[None]:
    """Let the signals of WAKING do nothing but wake a `Waker`."""
    former = [(number, signal.signal(number, lambda *_: None)) for number in WAKING]
    try:
        yield
    finally:
        for number, handler in former:
            signal.signal(number, handler)


class Waker:
    """Descriptor that becomes readable when a signal comes that is handled, or another thread calls `wake`."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Waker:
        self._former_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._former_writer)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._reader

    def wake(self) -> None:
        """Make the descriptor readable. Any thread may call this, also after the loop has ended."""
        with suppress(OSError):  # it is readable already
            os.write(self._writer, b"\0")

    def signals(self) -> bytes:
        """Return the numbers of the signals that have come since the last call, and zeros for calls of `wake`."""
        with suppress(BlockingIOError):
            return os.read(self._reader, 4096)
        return b""
