"""What the tests of the host floor stand on: a clock that is set by hand, a loop that is turned by hand, log lines."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import pytest

from vpntun.runtime.loop import Loop

NOBODY = 65534
LONGEST_WAIT = 5.0
"""Seconds of the real clock; what takes longer has failed."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class HandLoop(Loop):
    """The real loop under a clock that stands still until `pass_time`; its descriptors are the kernel's."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.deadline: Callable[[], float] = lambda: float("inf")
        self.on_deadline: Callable[[], None] = lambda: None
        super().__init__(self.clock)

    def poll(self, wait: float = 0.0) -> None:
        """One turn that waits at most `wait` seconds, and does what is due."""
        self.turn(lambda _: self.clock() + wait, self._look_at_deadline)

    def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Turn until the condition holds."""
        given_up = monotonic() + LONGEST_WAIT
        while not condition():
            assert monotonic() < given_up, f"waited {LONGEST_WAIT} s in vain {what}"
            self.poll(0.01)

    def settle(self, quiet: float = 0.05) -> None:
        """Turn until nothing can be on its way any more on this host."""
        end = monotonic() + quiet
        while monotonic() < end:
            self.poll(0.005)

    def pass_time(self, seconds: float) -> None:
        """Let the clock go on, and call what became due."""
        self.clock.now += seconds
        self.poll()

    def _look_at_deadline(self, _: float) -> None:
        if self.deadline() <= self.clock():
            self.on_deadline()


class Lines(logging.Handler):
    """Keeps the text of what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def logged(level: int = logging.DEBUG) -> Iterator[list[str]]:
    """The lines that the program logs meanwhile."""
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
    """Be an ordinary user, with a folder of its own, also where the tests run as root."""
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
    """This process may open no file and no socket meanwhile."""
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
