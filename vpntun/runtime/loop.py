"""The one loop: descriptors, the deadlines of the control plane, and the signals.

Each turn waits for a descriptor or for the earliest deadline, whichever comes first, then calls back. With nothing to
do it sleeps until the next deadline: there is no tick. From a listener for whose connections there is no room it looks
away for a second: that would be readable all the time.

A callback that raises VpntunError ends the loop. Any other exception is a bug: internal_errors.py counts it, and the
loop goes on. A descriptor whose callback fails in eight turns running is left alone for 50 ms, so that a bug cannot
take all of the processor.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from select import EPOLLIN, EPOLLOUT, epoll
from types import FrameType
from typing import Any

from vpntun.errors import VpntunError
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.runtime.log import NOTICE, Limited

Callback = Callable[[], None]
LONGEST_SLEEP = 3600.0
MOST_READY = 64
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SECONDS_TO_LOOK_AWAY = 1.0
MOST_FAILURES_IN_A_ROW = 8
SECONDS_AFTER_FAILURES = 0.05
MOST_DESCRIPTORS = 65536


class Loop:
    """Single-threaded; every callback runs to its end before the next."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, internal_errors: InternalErrors | None = None
    ) -> None:
        self.internal_errors = internal_errors or InternalErrors(clock=clock)
        self._clock = clock
        self._epoll = epoll()
        self._watched: dict[int, _Watched] = {}
        self._later: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._running = True
        self.now = clock()
        self.turns = 0
        """How many there have been."""
        self.slept = 0.0
        """Seconds that it has waited, all in all."""
        self._no_room = Limited(NOTICE, "connections have to wait: %s (a limit of this process or of the system)")

    def watch(
        self,
        descriptor: int,
        on_readable: Callback,
        on_writable: Callback | None = None,
        on_failure: Callback | None = None,
    ) -> None:
        """Call back while `descriptor` is readable; `await_writable` turns the other one on and off.

        `on_failure` is called where one of the two fails by a bug: it closes what cannot go on.
        """
        self._epoll.register(descriptor, EPOLLIN)
        self._watched[descriptor] = _Watched(on_readable, on_writable, on_failure, self.turns)

    def await_writable(self, descriptor: int, wanted: bool, *, alone: bool = False) -> None:
        """Call `on_writable` of a watched descriptor when it can be written again, or no longer.

        `alone`: do not report meanwhile that it can be read.
        """
        watched = self._watched[descriptor]
        awaited = EPOLLIN if not wanted else EPOLLOUT if alone else EPOLLIN | EPOLLOUT
        if watched.awaited != awaited:
            watched.awaited = awaited
            if not watched.is_ignored:
                self._epoll.modify(descriptor, awaited)

    def forget(self, descriptor: int) -> None:
        """Stop watching, before the descriptor is closed. It need not be watched."""
        watched = self._watched.pop(descriptor, None)
        if watched is not None and not watched.is_ignored:
            self._epoll.unregister(descriptor)

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any] | None:
        """The connection that waits at a watched listener, and its address; None: there is none, or no room for it."""
        try:
            return listener.accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._no_room(os.strerror(error.errno))
                self._look_away(listener.fileno(), SECONDS_TO_LOOK_AWAY)
            return None

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call once, that many seconds from now. It cannot be taken back: the callback looks if it is still due."""
        heapq.heappush(self._later, (self._clock() + seconds, next(self._order), callback))

    def rest(self, seconds: float) -> bool:
        """Serve for so long, before `run`; False once there has been a `stop`."""
        end = self._clock() + seconds
        while self._running and self._clock() < end:
            self.turn(lambda _: end, lambda _: None)
        return self._running

    def stop(self) -> None:
        """End `run` after this turn."""
        self._running = False

    def run(self, deadline: Callable[[float], float], on_deadline: Callable[[float], None]) -> None:
        """Serve until `stop`. `deadline`: the control plane's next, on the monotonic clock. Both are given `now`."""
        while self._running:
            self.turn(deadline, on_deadline)

    def time(self) -> float:
        """Read the clock; `now` is when it was last read in this turn."""
        return self._clock()

    def turn(self, deadline: Callable[[float], float], on_deadline: Callable[[float], None]) -> None:
        """Wait once, for a descriptor or for a deadline, and call back."""
        clock, watched, later = self._clock, self._watched, self._later
        try:
            due = deadline(self.now)
        except VpntunError:
            raise
        except Exception:
            self.internal_errors.note()
            due = self.now + SECONDS_TO_LOOK_AWAY
        earliest = later[0][0] if later and later[0][0] < due else due
        before = clock()
        wait = earliest - before
        ready = self._epoll.poll(LONGEST_SLEEP if wait > LONGEST_SLEEP else wait if wait > 0 else 0, MOST_READY)
        self.now = now = clock()
        self.slept += now - before
        self.turns = turn = self.turns + 1
        for descriptor, events in ready:
            callbacks = watched.get(descriptor)
            if callbacks is None or callbacks.since == turn:  # what was reported was a former owner's of that number
                continue
            try:
                if events != EPOLLIN:  # an error, or the other end's end, is for both to see
                    if events & ~EPOLLIN and callbacks.on_writable is not None:
                        callbacks.on_writable()
                    if not events & ~EPOLLOUT or watched.get(descriptor) is not callbacks:
                        continue
                callbacks.on_readable()
            except VpntunError:
                raise
            except Exception:
                self._failed(descriptor, callbacks)
        if earliest <= now:
            self.now = clock()  # what was read meanwhile took its time: a REPORT must not be due too soon after it
            while later and later[0][0] <= self.now:
                self._survive(heapq.heappop(later)[2])
            if due <= self.now:
                self._survive(lambda: on_deadline(self.now))

    def close(self) -> None:
        """Let epoll go."""
        self._epoll.close()

    def ending_on_signals(self, on_hangup: Callback | None = None) -> AbstractContextManager[None]:
        """Handle the signals of a service meanwhile.

        SIGINT, SIGTERM    the first stops the loop, run or not yet; the second ends the process
        SIGHUP             calls `on_hangup` from the loop. Without one it stops the loop, however many come, and
                           does nothing where it was ignored before, as nohup(1) arranges
        SIGUSR1, SIGUSR2   do nothing
        """
        return _Signals(self, on_hangup)

    def _survive(self, callback: Callback) -> None:
        """Call back; a bug in there is noted, and ends nothing else."""
        try:
            callback()
        except VpntunError:
            raise
        except Exception:
            self.internal_errors.note()

    def _failed(self, descriptor: int, watched: _Watched) -> None:
        """Note a bug in this descriptor's callback."""
        self.internal_errors.note()
        if watched.on_failure is not None:
            self._survive(watched.on_failure)
        in_a_row = watched.failed_in == self.turns - 1
        watched.failures = watched.failures + 1 if in_a_row else 1
        watched.failed_in = self.turns
        if watched.failures >= MOST_FAILURES_IN_A_ROW and self._watched.get(descriptor) is watched:
            self._look_away(descriptor, SECONDS_AFTER_FAILURES)

    def _look_away(self, descriptor: int, seconds: float) -> None:
        """Ignore a descriptor for so long, whatever could be read or written there."""
        watched = self._watched[descriptor]
        self._epoll.unregister(descriptor)
        watched.is_ignored = True

        def look_again() -> None:
            watched.is_ignored = False
            if self._watched.get(descriptor) is watched:  # and not another's by now
                self._epoll.register(descriptor, watched.awaited)

        self.call_later(seconds, look_again)


def allow_many_descriptors() -> None:
    """Raise this process's limit as far as the system lets it: each peer that comes over TCP has a descriptor.

    A process begins with 1,024, for the sake of those that use select(2), which this loop does not (systemd.exec(5),
    LimitNOFILE).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(slots=True)
class _Watched:
    """`since`: the turn in which, or after which, it was first watched; `failed_in`: the last in which it failed."""

    on_readable: Callback
    on_writable: Callback | None
    on_failure: Callback | None
    since: int
    awaited: int = EPOLLIN
    is_ignored: bool = False
    failures: int = 0
    failed_in: int = -1


class _Signals(AbstractContextManager[None]):
    def __init__(self, loop: Loop, on_hangup: Callback | None) -> None:
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
            signal.signal(number, self._first)
        if self._on_hangup is not None:
            signal.signal(signal.SIGHUP, self._hangup)
        elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._terminal_closed)
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, _do_nothing)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        self._loop.forget(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _first(self, _number: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        self._loop.stop()

    def _terminal_closed(self, _number: int, _frame: FrameType | None) -> None:
        """Stop, and leave the others' handlers alone: kernel, shell and systemd may all signal the same closing."""
        self._loop.stop()

    def _hangup(self, _number: int, _frame: FrameType | None) -> None:
        self._hung_up = True  # whatever runs now runs to its end first

    def _drain(self) -> None:
        self._reader.recv(64)
        if self._hung_up and self._on_hangup is not None:
            self._hung_up = False
            self._on_hangup()


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Ignore a signal. Child processes get its default: SIG_IGN they would inherit."""
