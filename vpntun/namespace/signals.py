"""Signals of a run: those meant for the program are passed on, those of the terminal have reached it already.

    before the program is started    SIGINT, SIGQUIT, SIGTERM and SIGHUP end the run
    from the terminal's keys         SIGINT and SIGQUIT do nothing here: the program is in the same process group
    from other processes             SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2 and SIGWINCH are passed on
    SIGHUP                           is passed on in any case: the kernel sends it to the leader of a session alone
    from the program itself          nothing: it may have signalled its whole group
    the program has stopped          this process stops too, so that the shell regains its terminal
    SIGCONT                          is passed on
    SIGTTOU                          is ignored: a line of the log stops no tunnel while another group has the terminal

Who signals the whole group reaches the program twice, as timeout(1) does even a program that it starts itself.

The kernel says where a signal came from (sigaction(2), si_code), which handlers in Python are not told: so the signals
are blocked, and read from a descriptor (signalfd(2)).
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from contextlib import AbstractContextManager, suppress
from typing import Protocol

from vpntun.runtime.loop import Loop
from vpntun.runtime.process_one import collect_orphans

ENDING = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP})
PASSED_ON = ENDING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
READ = PASSED_ON | {signal.SIGCHLD, signal.SIGCONT}
SI_KERNEL = 0x80
MOST_AT_ONCE = 16

_SIGNALFD_SIGINFO = struct.Struct("=IiiI112x")
"""Number, error, code, and process that sent it."""
_SIGSET_SIZE = 128
_libc = ctypes.CDLL(None, use_errno=True)


class Signalled(Protocol):
    """The program, as far as signals concern it (command.py)."""

    process: int
    is_started: bool

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def has_stopped(self) -> bool:
        """Whether it was stopped since the last call, and not continued."""


class RunSignals(AbstractContextManager["RunSignals"]):
    """Handling of a run's signals inside a `with` block. `ended_by`: the signal that ended it early."""

    def __init__(self, loop: Loop, program: Signalled) -> None:
        self.ended_by: int | None = None
        self._loop = loop
        self._program = program
        self._former: set[signal.Signals] = set()

    def __enter__(self) -> RunSignals:
        ignored = {number for number in ENDING if signal.getsignal(number) == signal.SIG_IGN}
        self._read = READ - ignored
        self._former = set(signal.pthread_sigmask(signal.SIG_BLOCK, self._read))  # type: ignore[arg-type]
        self._descriptor = _signalfd(self._read)
        self._former_ttou = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        self._loop.watch(self._descriptor, self._handle)
        self._loop.call_later(0.0, self._children_changed)  # some may have ended before
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.forget(self._descriptor)
        with suppress(BlockingIOError):
            while os.read(self._descriptor, _SIGNALFD_SIGINFO.size):
                pass
        os.close(self._descriptor)
        signal.signal(signal.SIGTTOU, self._former_ttou)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._former)

    def _handle(self) -> None:
        came: list[tuple[int, int, int]] = []
        with suppress(BlockingIOError):
            data = os.read(self._descriptor, _SIGNALFD_SIGINFO.size * MOST_AT_ONCE)
            came = [(number, code, sender) for number, _, code, sender in _SIGNALFD_SIGINFO.iter_unpack(data)]
        # First of all: a program that was just continued must not look stopped.
        for number, code, sender in sorted(came, key=lambda each: each[0] != signal.SIGCONT):
            if number == signal.SIGCHLD:
                self._children_changed()
            elif number == signal.SIGCONT:
                self._loop.note_continued()
                self._program.signal(number)
            else:
                self._take(number, is_terminals=code == SI_KERNEL, sender=sender)

    def _take(self, number: int, *, is_terminals: bool, sender: int) -> None:
        if not self._program.is_started:
            if number in ENDING:
                self.ended_by = number
                self._loop.stop()
        elif number == signal.SIGHUP or (not is_terminals and sender != self._program.process):
            self._program.signal(number)

    def _children_changed(self) -> None:
        if collect_orphans():
            self._loop.call_later(0.0, self._children_changed)
        if self._program.is_started and self._program.has_stopped() and _has_terminal():
            os.kill(os.getpid(), signal.SIGSTOP)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, so that a shell may wait for it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _signalfd(numbers: frozenset[signal.Signals]) -> int:
    """Return a descriptor from which these signals are read while they are blocked. Raises OSError."""
    signals = ctypes.create_string_buffer(_SIGSET_SIZE)
    _libc.sigemptyset(signals)
    for number in numbers:
        _libc.sigaddset(signals, int(number))
    descriptor: int = _libc.signalfd(-1, signals, os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return descriptor
