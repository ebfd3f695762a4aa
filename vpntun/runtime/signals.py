"""Signals of a service, handled by its loop.

SIGINT, SIGTERM    the first one stops the loop, even before it runs; the second ends the process
SIGHUP             calls back from the loop. Without a callback it stops the loop, and further ones have no effect;
                   but if SIGHUP was ignored before, as under nohup(1), it stays ignored
SIGUSR1, SIGUSR2   do nothing
SIGCHLD            collects children that this process did not start itself (process_one.py)
SIGCONT            ends a pause, if the loop has not turned for long (clock.py)
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType
from typing import Protocol

from vpntun.runtime.process_one import collect_orphans, ending_action


class SignalledLoop(Protocol):
    """The loop, as far as signals concern it."""

    def watch(self, descriptor: int, on_readable: Callable[[], None]) -> None:
        """Call back while the descriptor is readable."""

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back once, after `seconds`."""

    def stop(self) -> None:
        """End after this turn."""

    def note_continued(self) -> None:
        """Note that a stop of the process has ended."""


class ServiceSignals(AbstractContextManager[None]):
    """Handlers of a service's signals inside a `with` block. `on_hangup`: called from the loop at SIGHUP."""

    def __init__(self, loop: SignalledLoop, on_hangup: Callable[[], None] | None) -> None:
        self._loop = loop
        self._on_hangup = on_hangup
        self._hung_up = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> None:
        self._loop.watch(self._reader.fileno(), self._drain)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop_on_first)
        if self._on_hangup is not None:
            signal.signal(signal.SIGHUP, self._hangup)
        elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._terminal_closed)
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
            signal.signal(number, _do_nothing)
        signal.signal(signal.SIGCONT, self._continue)
        self._loop.call_later(0.0, self._collect_orphans)  # some may have ended before

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._loop.forget(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _stop_on_first(self, _number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ending_action())
        self._loop.stop()

    def _terminal_closed(self, _number: int, _frame: FrameType | None) -> None:
        """Stop, and keep all handlers: kernel, shell and systemd may each send SIGHUP for the same closed terminal."""
        self._loop.stop()

    def _hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hung_up = True  # the callback that is running finishes first

    def _continue(self, _number: int, _frame: FrameType | None) -> None:
        self._loop.note_continued()

    def _drain(self) -> None:
        self._reader.recv(64)
        if self._hung_up and self._on_hangup is not None:
            self._hung_up = False
            self._on_hangup()
        self._collect_orphans()

    def _collect_orphans(self) -> None:
        if collect_orphans():
            self._loop.call_later(0.0, self._collect_orphans)


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal. Unlike SIG_IGN, a handler is not inherited: child processes get the default action."""
