"""Move to the background: the caller waits for the result of the start, and reports it as exit status.

    the caller                           the daemon
    forks, and waits                     has its own session, no stdin, and the caller's stderr for now; keeps none of
                                         the caller's other descriptors, ignored or blocked signals, or open umask
    exits with the daemon's status   <-  the set-up fails: writes the error to stderr, and exits
    exits with 0                     <-  the set-up is done and, with --wait, the link is up
    exits with 0                     <-  without --wait: the set-up has waited for a name for 10 s
    exits with 9                     <-  the time of --wait is over; the daemon keeps trying
    exits with 1                     <-  the daemon was told to stop before that
                                         from then on: no terminal, / as working folder, and only the log for output

SIGINT or SIGTERM to the caller ends the daemon first, then the caller.

A descriptor that the daemon kept would hold the caller's locks, and let the readers of its pipes wait forever. Those
that systemd hands over ($LISTEN_FDS, sd_listen_fds(3)) stay open.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

from vpntun.errors import NotInTime, VpntunError
from vpntun.runtime.clock import boottime
from vpntun.runtime.loop import Loop
from vpntun.runtime.process_one import ending_action

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
_UP, _LATE = b"u", b"l"


class Background:
    """The daemon's side. `wait`: how many seconds the caller waits for the link; None to wait only for the set-up."""

    def __init__(self, caller: int, wait: float | None) -> None:
        self._caller: int | None = caller
        self._wait = wait
        self._until = boottime() + (wait or 0.0)

    @classmethod
    def enter(cls, wait: float | None = None) -> Background:
        """Fork. Returns in the daemon only; in the caller, raises SystemExit, NotInTime or VpntunError."""
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)  # until the caller can end the daemon, too
        kept = _descriptors_from_systemd(os.environ)
        daemon = os.fork()
        if daemon:
            os.close(writer)
            _wait_for(daemon, reader, wait)
        os.close(reader)
        os.setsid()
        _close_inherited(kept)
        _reset_umask()
        _reset_signals()
        _redirect_to_null(0)
        return cls(writer, wait)

    def device_is_up(self, loop: Loop) -> None:
        """Report that the set-up is done, which releases a caller that does not wait for the link."""
        if self._wait is None:
            self._release(_UP)
        else:
            loop.call_later(max(0.0, self._until - boottime()), lambda: self._release(_LATE))

    def link_is_up(self) -> None:
        """Report that a link is up, which releases the caller."""
        self._release(_UP)

    def _release(self, word: bytes) -> None:
        """Tell the caller the result, once, and detach from its terminal."""
        if self._caller is None:
            return
        with suppress(BrokenPipeError):
            os.write(self._caller, word)
        os.close(self._caller)
        self._caller = None
        os.chdir("/")
        _redirect_to_null(1)
        _redirect_to_null(2)


def _wait_for(daemon: int, reader: int, wait: float | None) -> None:
    """Exit as the daemon reports, or with the status that it ended with."""
    with _signals_end_both(daemon):
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
def _signals_end_both(daemon: int) -> Iterator[None]:
    """On SIGINT or SIGTERM, end the daemon cleanly, then die of the same signal, so that a shell notices."""

    def end(number: int, _frame: FrameType | None) -> None:
        os.kill(daemon, signal.SIGTERM)
        os.waitpid(daemon, 0)
        signal.signal(number, ending_action())
        os.kill(os.getpid(), number)

    handled = [each for each in _ENDING_SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    former = {number: signal.signal(number, end) for number in handled}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING_SIGNALS)
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def _descriptors_from_systemd(environment: Mapping[str, str]) -> range:
    """Return the descriptors that systemd has handed over to this process."""
    number = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not number.isdecimal():
        return range(0)
    return range(3, 3 + int(number))


def _close_inherited(kept: range) -> None:
    """Close the descriptors above stderr that came from the caller: Python opens its own with close-on-exec."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in kept:
            with suppress(OSError):  # the one of the list itself, which is closed by now
                if not fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                    os.close(descriptor)


def _reset_umask() -> None:
    """Let nobody else write what the daemon and its hooks create; a stricter umask is kept."""
    inherited = os.umask(0o077)
    os.umask(inherited & 0o077 | 0o022)


def _reset_signals() -> None:
    """Give all signals their default action, and block none."""
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, descriptor)
    os.close(null)
