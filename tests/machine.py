"""Helpers of tests with sockets or files: a clock and a loop under the test's control, log lines, an ordinary user."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from vpntun.runtime.clock import PauseDetector
from vpntun.runtime.loop import Loop

NOBODY = 65534
FEWEST_TURNS = 3
LONGEST_WAIT = 5.0
"""Seconds of the real clock. A condition that takes longer has failed."""


class Clock:
    """A clock that a test sets; it also advances by `ticks` each time that it is read."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ticks = 0.0

    def __call__(self) -> float:
        self.now += self.ticks
        return self.now


class HandLoop(Loop):
    """The real loop, with real descriptors, under a clock that only the test advances."""

    def __init__(self) -> None:
        self.clock, self._asleep = Clock(), 0.0
        self.deadline: Callable[[], float] = lambda: float("inf")
        self.on_deadline: Callable[[], None] = lambda: None
        super().__init__(self.clock, pauses=PauseDetector(self.clock, lambda: self.clock() - self._asleep, self.clock))

    def poll(self, wait: float = 0.0) -> None:
        """Turn once: wait at most `wait` seconds, and do everything that is due."""
        self.turn(lambda _: self.clock() + wait, self._look_at_deadline)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Turn until the condition holds."""
        given_up = monotonic() + LONGEST_WAIT
        while not condition():
            assert monotonic() < given_up, f"waited {LONGEST_WAIT} s in vain {what}"
            self.poll(0.01)

    def arrival(self, receiver: socket.socket) -> tuple[bytes, Any]:
        """Turn until something arrives at a non-blocking socket, and return it with its sender."""
        got: list[tuple[bytes, Any]] = []

        def has_come() -> bool:
            try:
                got.append(receiver.recvfrom(65536))
            except BlockingIOError:
                return False
            return True

        self.until(has_come, "for an arrival")
        return got[0]

    def settle(self, quiet: float = 0.05) -> None:
        """Turn for `quiet` real seconds, in which everything sent on this host arrives.

        It turns a few times in any case: on a busy machine the time may be over before the first turn.
        """
        end, turns = monotonic() + quiet, 0
        while monotonic() < end or turns < FEWEST_TURNS:
            self.poll(0.005)
            turns += 1

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and call everything that became due."""
        self.clock.now += seconds
        self.poll()

    def suspend(self, seconds: float) -> None:
        """Advance the clock while the machine is suspended, and wake."""
        self._asleep += seconds
        self.pass_time(seconds)

    def _look_at_deadline(self, _: float) -> None:
        if self.deadline() <= self.clock():
            self.on_deadline()


class Lines(logging.Handler):
    """Log handler that keeps the text of each line."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def logged(level: int = logging.DEBUG) -> Iterator[list[str]]:
    """Record the lines that the program logs in this block."""
    log = logging.getLogger("vpntun")
    former = log.handlers, log.level, log.propagate
    lines = Lines()
    log.handlers, log.propagate = [lines], False
    log.setLevel(level)
    try:
        yield lines.texts
    finally:
        log.handlers, log.propagate = former[0], former[2]
        log.setLevel(former[1])


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """Run this block as an ordinary user with a folder of its own, even if the tests run as root."""
    folder = Path(tempfile.mkdtemp(prefix="vpntun-test-"))
    root = os.geteuid() == 0
    if root:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for each in folder.rglob("*"):
            if each.is_dir() and not each.is_symlink():
                each.chmod(0o700)
        shutil.rmtree(folder)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Prevent this process from opening files and sockets in this block."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
