"""Single-threaded event loop for descriptors, timers, the control plane's deadlines, and signals.

Each turn waits for a descriptor or for the earliest deadline, whichever comes first, then calls back. There is no tick:
with nothing to do the loop sleeps until the next deadline. When the process has no room for another connection, the
loop ignores the listener for a second; otherwise it would wake all the time, since the listener stays readable.

After a pause in which the process did not run (clock.py) the loop calls back those who asked for it, before all else.

A callback that raises VpntunError ends the loop. Any other exception is a bug: internal_errors.py counts it, and the
loop keeps running. A descriptor whose callback fails in eight consecutive turns is ignored for 50 ms, so that a bug
cannot take the whole processor.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import resource
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from select import EPOLLET, EPOLLIN, EPOLLOUT, epoll
from typing import Any

from vpntun.errors import VpntunError
from vpntun.runtime.clock import SHORTEST_PAUSE, ClockWatch, Pause, PauseDetector, boottime
from vpntun.runtime.internal_errors import InternalErrors
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.signals import ServiceSignals
from vpntun.types import NEVER

Callback = Callable[[], None]
LONGEST_SLEEP = 3600.0
MOST_READY = 64
NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SECONDS_TO_LOOK_AWAY = 1.0
MOST_FAILURES_IN_A_ROW = 8
SECONDS_AFTER_FAILURES = 0.05
MOST_DESCRIPTORS = 65536

Deadlines = tuple[Callable[[float], float], Callable[[float], None]]
"""Returns the next deadline, and what to do then; both are given the time."""
NO_DEADLINES: Deadlines = (lambda _: NEVER, lambda _: None)


class Loop:
    """Event loop on epoll; every callback runs to its end before the next one starts."""

    def __init__(
        self,
        clock: Callable[[], float] = boottime,
        internal_errors: InternalErrors | None = None,
        pauses: PauseDetector | None = None,
    ) -> None:
        self.internal_errors = internal_errors or InternalErrors(clock=clock)
        self._clock = clock
        self._pauses = pauses or PauseDetector(clock)
        self._was_continued = False
        self._clock_watch: ClockWatch | None = None
        self._after_pauses: list[Callable[[Pause], None]] = []
        self._epoll = epoll()
        self._watched: dict[int, _Watched] = {}
        self._later: list[tuple[float, int, Callback]] = []
        self._order = itertools.count()
        self._running = True
        self._is_finishing = False
        self._deadlines = NO_DEADLINES
        self.now = clock()
        self.turns = 0
        """Number of turns so far."""
        self.is_idle = False
        """Whether no descriptor was ready in this turn."""
        self.slept = 0.0
        """Total time spent waiting, in seconds."""
        self._no_room = Limited(NOTICE, "connections have to wait: %s (a limit of this process or of the system)")

    def watch(
        self,
        descriptor: int,
        on_readable: Callback,
        on_writable: Callback | None = None,
        on_failure: Callback | None = None,
    ) -> None:
        """Call `on_readable` while `descriptor` is readable; `await_writable` starts and stops calls of `on_writable`.

        `on_failure` is called when one of the two fails because of a bug, to close what can no longer work.
        """
        self._epoll.register(descriptor, EPOLLIN)
        self._watched[descriptor] = _Watched(on_readable, on_writable, on_failure, self.turns)

    def watch_changes(
        self, descriptor: int, on_readable: Callback, on_writable: Callback, on_failure: Callback | None = None
    ) -> None:
        """Call back once each time that more can be read or written, and at an error or hangup (EPOLLET in epoll(7)).

        So a descriptor that its owner leaves alone never keeps the loop awake. A callback reads or writes until the
        kernel has no more, or calls `look_again`. `on_failure`: as for `watch`.
        """
        awaited = EPOLLIN | EPOLLOUT | EPOLLET
        self._epoll.register(descriptor, awaited)
        self._watched[descriptor] = _Watched(on_readable, on_writable, on_failure, self.turns, awaited)

    def look_again(self, descriptor: int) -> None:
        """Call back in the next turn as if what can be read or written of a `watch_changes` descriptor had changed."""
        watched = self._watched[descriptor]
        if not watched.is_ignored:
            self._epoll.modify(descriptor, watched.awaited)

    def await_writable(self, descriptor: int, wanted: bool, *, alone: bool = False) -> None:
        """Start or stop calling `on_writable` of a watched descriptor when it is writable.

        `alone`: do not call `on_readable` meanwhile.
        """
        watched = self._watched[descriptor]
        awaited = EPOLLIN if not wanted else EPOLLOUT if alone else EPOLLIN | EPOLLOUT
        if watched.awaited != awaited:
            watched.awaited = awaited
            if not watched.is_ignored:
                self._epoll.modify(descriptor, awaited)

    def forget(self, descriptor: int) -> None:
        """Stop watching a descriptor, before it is closed. Does nothing if it is not watched."""
        watched = self._watched.pop(descriptor, None)
        if watched is not None and not watched.is_ignored:
            self._epoll.unregister(descriptor)

    def accept(self, listener: socket.socket) -> tuple[socket.socket, Any] | None:
        """Accept a connection, with its address, from a watched listener. None if none waits, or there is no room."""
        try:
            return listener.accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._no_room(os.strerror(error.errno))
                self._ignore_for(listener.fileno(), SECONDS_TO_LOOK_AWAY)
            return None

    def call_later(self, seconds: float, callback: Callback) -> None:
        """Call back once, after `seconds`. It cannot be cancelled: the callback checks whether it is still needed."""
        heapq.heappush(self._later, (self._clock() + seconds, next(self._order), callback))

    def call_after_pauses(self, callback: Callable[[Pause], None]) -> None:
        """Call back after each pause of at least 5 s in which the process did not run; wake up for that if possible."""
        self._after_pauses.append(callback)
        if self._clock_watch is None:
            with suppress(OSError):
                self._clock_watch = ClockWatch()
                self.watch(self._clock_watch.fileno(), self._clock_has_changed)

    def note_continued(self) -> None:
        """Note that SIGCONT came, which ends a stop of the process."""
        self._was_continued = True

    def serve(self, until: Callable[[], bool], seconds: float = NEVER) -> bool:
        """Serve until the condition holds, before `run` is called, but at most for `seconds`.

        Return False once `stop` was called.
        """
        end = self._clock() + seconds
        while self._running and not until() and self._clock() < end:
            self.turn(lambda _: end, lambda _: None)
        return self._running

    @property
    def running(self) -> bool:
        """Whether `stop` was not called yet."""
        return self._running

    def stop(self) -> None:
        """End `run` after this turn."""
        self._running = False

    def run(self, deadline: Callable[[float], float], on_deadline: Callable[[float], None]) -> None:
        """Serve until `stop`. `deadline` returns the control plane's next deadline; both functions are given `now`."""
        self._deadlines = deadline, on_deadline
        while self._running:
            self.turn(deadline, on_deadline)

    def finish(self, until: Callable[[], object]) -> None:
        """Serve until the condition holds, before `run`, or after it with the same deadlines, even after `stop`.

        An error that would end `run` ends only what raises it: a descriptor is forgotten, and deadlines are.
        """
        self._is_finishing = True
        try:
            while not until():
                try:
                    self.turn(*self._deadlines)
                except VpntunError:
                    self._deadlines = NO_DEADLINES
        finally:
            self._is_finishing = False

    def time(self) -> float:
        """Read the clock. `now` is cheaper: the time at which this turn last read it."""
        return self._clock()

    def turn(self, deadline: Callable[[float], float], on_deadline: Callable[[float], None]) -> None:
        """Wait once for a descriptor or a deadline, then call back."""
        clock, watched, later, former = self._clock, self._watched, self._later, self.now
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
        self.is_idle = not ready
        if now - former >= SHORTEST_PAUSE:
            self._look_for_pause(max(before, earliest))
        self._was_continued = False
        for descriptor, events in ready:
            callbacks = watched.get(descriptor)
            if callbacks is None or callbacks.since == turn:  # the event belongs to a former owner of this number
                continue
            try:
                if events != EPOLLIN:  # an error or a hangup is reported to both callbacks
                    if events & ~EPOLLIN and callbacks.on_writable is not None:
                        callbacks.on_writable()
                    if not events & ~EPOLLOUT or watched.get(descriptor) is not callbacks:
                        continue
                callbacks.on_readable()
            except VpntunError:
                if not self._is_finishing:
                    raise
                self.forget(descriptor)
            except Exception:
                self._failed(descriptor, callbacks)
        if earliest <= now:
            self.now = clock()  # reading took time: a REPORT must not be due too soon after it
            while later and later[0][0] <= self.now:
                self._call_safely(heapq.heappop(later)[2])
            if due <= self.now:
                self._call_safely(lambda: on_deadline(self.now))

    def close(self) -> None:
        """Close the loop's own descriptors."""
        if self._clock_watch is not None:
            self._clock_watch.close()
        self._epoll.close()

    def ending_on_signals(self, on_hangup: Callback | None = None) -> AbstractContextManager[None]:
        """Handle the signals of a service inside a `with` block (signals.py). `on_hangup` is called at SIGHUP."""
        return ServiceSignals(self, on_hangup)

    def _look_for_pause(self, due: float) -> None:
        """Call back if a pause has just ended. `due`: when this turn should have begun at the latest."""
        pause = self._pauses.look(due, continued=self._was_continued)
        if pause is not None and self._running:
            for callback in self._after_pauses:
                self._call_safely(partial(callback, pause))

    def _clock_has_changed(self) -> None:
        if self._clock_watch is not None:
            self._clock_watch.rearm()
        self._look_for_pause(NEVER)

    def _call_safely(self, callback: Callback) -> None:
        """Call back; if that fails because of a bug, note it and continue."""
        try:
            callback()
        except VpntunError:
            raise
        except Exception:
            self.internal_errors.note()

    def _failed(self, descriptor: int, watched: _Watched) -> None:
        """Note a bug in this descriptor's callback, and ignore the descriptor for a while if it keeps failing."""
        self.internal_errors.note()
        if watched.on_failure is not None:
            self._call_safely(watched.on_failure)
        in_a_row = watched.failed_in == self.turns - 1
        watched.failures = watched.failures + 1 if in_a_row else 1
        watched.failed_in = self.turns
        if watched.failures >= MOST_FAILURES_IN_A_ROW and self._watched.get(descriptor) is watched:
            self._ignore_for(descriptor, SECONDS_AFTER_FAILURES)

    def _ignore_for(self, descriptor: int, seconds: float) -> None:
        """Ignore a descriptor for `seconds`, whatever could be read or written there."""
        watched = self._watched[descriptor]
        self._epoll.unregister(descriptor)
        watched.is_ignored = True

        def watch_again() -> None:
            watched.is_ignored = False
            if self._watched.get(descriptor) is watched:  # the number may belong to another by now
                self._epoll.register(descriptor, watched.awaited)

        self.call_later(seconds, watch_again)


def allow_many_descriptors() -> None:
    """Raise this process's limit on descriptors as far as allowed: each peer connected over TCP needs one.

    The usual limit of 1,024 protects programs that use select(2); this loop does not (systemd.exec(5), LimitNOFILE).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(slots=True)
class _Watched:
    """Watched descriptor. `since`: number of turns when watching began; `failed_in`: turn of its last failure."""

    on_readable: Callback
    on_writable: Callback | None
    on_failure: Callback | None
    since: int
    awaited: int = EPOLLIN
    is_ignored: bool = False
    failures: int = 0
    failed_in: int = -1
