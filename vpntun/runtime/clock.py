"""The program's clock, from which every age and every deadline is taken, and pauses that it went through.

    CLOCK_BOOTTIME    counts the time of a suspend, and nobody sets it: `boottime`
    CLOCK_MONOTONIC   stands still while the machine is suspended. By it, a laptop would take last evening's keys for
                      seconds old in the morning. `awake_time` is for systemd, which asks for it
    CLOCK_REALTIME    is set forwards and backwards, by people and by NTP: for dates alone

In a pause this process did not run. Meanwhile the other ends may have given up, and the network may be another one.

    suspended    the machine slept: CLOCK_BOOTTIME has advanced by more than CLOCK_MONOTONIC
    stopped      by SIGSTOP, with its container, or in a virtual machine whose clocks went on: SIGCONT came, or the loop
                 woke long after its deadline
    clock set    forward. The clocks of a paused virtual machine may all have stood still, and then its wall clock is
                 set, by the hypervisor's agent or by NTP

epoll sleeps by CLOCK_MONOTONIC, so after a suspend it would sleep on for the rest of its time; `ClockWatch` wakes it.
Sources: clock_gettime(2), time_namespaces(7), timerfd_create(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

SHORTEST_PAUSE = 5.0
"""Seconds that this process must not have run. After 5 s WireGuard lets a handshake be asked for again."""

_REALTIME = 0
_TFD_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE_AND_CANCEL_ON_SET = 1 | 2
_FAR = min(1 << 40, sys.maxsize)
"""Seconds since 1970 to a time that nobody will see: the largest number that any machine takes, or year 36812."""


boottime: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Return the seconds since the machine was started, those of suspends included."""


def awake_time() -> float:
    """Return the seconds since the machine was started, without those of suspends."""
    return time.monotonic()


@dataclass(frozen=True)
class Pause:
    """A pause that has just ended. `seconds` is 0 if its length is not known."""

    kind: Literal["suspended", "stopped", "clock set"]
    seconds: float = 0.0

    def __str__(self) -> str:
        """What has happened, as a sentence for the log."""
        if self.kind == "suspended":
            return f"this machine was suspended for {self.seconds:.0f} s"
        if self.kind == "stopped":
            return f"this process did not run for {self.seconds:.0f} s" if self.seconds else "this process was stopped"
        return f"the clock was set forward by {self.seconds:.0f} s"


class PauseDetector:
    """Detector that compares three clocks: one that counts suspends, one that does not, and the wall's."""

    def __init__(
        self,
        clock: Callable[[], float] = boottime,
        awake: Callable[[], float] = awake_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._awake = awake
        self._wall = wall
        now = clock()
        self._asleep, self._set_by = now - awake(), wall() - now

    def look(self, due: float, *, continued: bool) -> Pause | None:
        """Return the pause that has ended since the last call, or None.

        `due`: when the loop should have woken at the latest. `continued`: whether SIGCONT came.
        """
        now = self._clock()
        asleep, set_by = now - self._awake(), self._wall() - now
        slept, forward = asleep - self._asleep, set_by - self._set_by
        self._asleep, self._set_by = asleep, set_by
        if slept >= SHORTEST_PAUSE:
            return Pause("suspended", slept)
        if now - due >= SHORTEST_PAUSE:
            return Pause("stopped", now - due)
        if continued:
            return Pause("stopped")
        return Pause("clock set", forward) if forward >= SHORTEST_PAUSE else None


class ClockWatch:
    """Descriptor that becomes readable after a suspend, and when somebody has set the wall clock.

    It is a timer that never expires, but is cancelled then (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET;
    fs/timerfd.c, timerfd_resume). Raises OSError where there is none.
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._checked(self._libc.timerfd_create(_REALTIME, _TFD_FLAGS))
        try:
            self._arm()
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def rearm(self) -> None:
        """Arm the timer again after the descriptor has become readable."""
        with suppress(OSError):  # ECANCELED
            os.read(self._descriptor, 8)
        self._arm()

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._descriptor)

    def _arm(self) -> None:
        times = (ctypes.c_long * 4)(0, 0, _FAR, 0)
        self._checked(self._libc.timerfd_settime(self._descriptor, _ABSOLUTE_AND_CANCEL_ON_SET, times, None))

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno() or errno.ENOSYS
            raise OSError(number, os.strerror(number))
        return result
