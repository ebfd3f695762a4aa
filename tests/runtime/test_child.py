"""Child processes that hang, cannot be killed, or leave processes behind.

tests/process/test_hooks.py has more tests of commands.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.machine import HandLoop, logged
from vpntun.runtime import child
from vpntun.runtime.child import Child, run_and_wait


def start(loop: HandLoop, script: str, on_end: Callable[[str | None], None], *, seconds: float | None = None) -> Child:
    return Child("test", ["/bin/sh", "-c", script], {"PATH": os.defpath}, loop, on_end, seconds=seconds)


@contextmanager
def nothing_can_be_killed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Make every kill fail, as if the command had become root; yield the processes that should have been killed."""
    started: list[subprocess.Popen[bytes]] = []
    spared: list[int] = []

    class Remembered(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def refuse(process: int, _: int) -> None:
        spared.append(process)
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", Remembered)
        patched.setattr(os, "killpg", refuse)
        patched.setattr(child, "SECONDS_TO_DIE", 0.1)
        yield spared
    for each in started:
        each.kill()
        each.wait()


@contextmanager
def watched_by(loop: HandLoop) -> Iterator[list[int]]:
    """Yield the descriptors that the loop begins to watch in this block."""
    descriptors: list[int] = []
    watch = loop.watch

    def remember(descriptor: int, *callbacks: Any) -> None:
        descriptors.append(descriptor)
        watch(descriptor, *callbacks)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "watch", remember)
        yield descriptors


def wait_for_all(descriptors: Iterable[int]) -> None:
    """Wait until each of these descriptors is readable."""
    for each in descriptors:
        poller = select.poll()
        poller.register(each, select.POLLIN)
        assert poller.poll(5000)


def test_a_background_process_may_still_write_after_the_next_command_has_started(loop: HandLoop) -> None:
    other: list[int] = []
    second: list[Child] = []

    def go_on(_: str | None) -> None:
        other.append(os.dup(0))  # so that the next pidfd gets the number that this output had
        second.append(start(loop, "exec sleep 10", lambda problem: None))

    with logged() as lines:
        with watched_by(loop) as descriptors:
            start(loop, "(sleep 0.2; echo late; sleep 1) &", go_on)
        assert len(descriptors) == 2
        wait_for_all(descriptors)  # so that the end and the output are found in the same turn
        began = time.monotonic()
        loop.until(lambda: second)
        loop.settle()
    assert lines == ["test: late"]
    assert second[0].running
    assert time.monotonic() - began < 5
    second[0].stop(0)
    os.close(other[0])


WRITE_ON = """(
    for number in 1 2 3; do sleep 0.1; echo tick; done
    head -c 200000 /dev/zero
    echo lives >{file}
) &"""
RUN_AND_EXIT = """
import sys
from vpntun.runtime.child import run_and_wait
assert run_and_wait("test", ["/bin/sh", "-c", sys.argv[1]], {"PATH": "/usr/bin:/bin"}) is None
"""


def lives_on(file: Path) -> bool:
    end = time.monotonic() + 10
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)
    return file.exists()


def test_what_a_command_leaves_in_the_background_can_write_on(loop: HandLoop, tmp_path: Path) -> None:
    ends: list[str | None] = []
    start(loop, WRITE_ON.format(file=tmp_path / "out"), ends.append)
    loop.until(lambda: ends)
    assert ends == [None]
    assert lives_on(tmp_path / "out")


def test_what_a_command_leaves_in_the_background_outlives_the_program(tmp_path: Path) -> None:
    script = WRITE_ON.format(file=tmp_path / "out")
    subprocess.run([sys.executable, "-c", RUN_AND_EXIT, script], check=True, timeout=10)
    assert lives_on(tmp_path / "out")


def test_a_background_process_that_holds_the_output_open_is_not_waited_for(loop: HandLoop) -> None:
    ends: list[str | None] = []
    before = time.monotonic()
    start(loop, "echo $$; sleep 10 & echo left", ends.append)
    with logged() as lines:
        loop.until(lambda: ends)
    assert time.monotonic() - before < 5
    assert lines[1:] == ["test: left"]
    os.killpg(int(lines[0].split()[1]), signal.SIGKILL)


def test_nothing_reads_on_for_a_command_that_leaves_nothing_behind(loop: HandLoop) -> None:
    ends: list[str | None] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(child, "_keep_reading", lambda _: pytest.fail("somebody holds the pipe"))
        start(loop, "head -c 60000 /dev/zero", ends.append)
        loop.until(lambda: ends)
    assert ends == [None]


def test_a_command_that_cannot_be_killed_is_given_up(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    problems: list[str | None] = []
    with nothing_can_be_killed(monkeypatch) as spared:
        start(loop, "exec sleep 60", problems.append)
        loop.pass_time(child.SECONDS_TO_RUN)
        assert (problems, len(spared)) == ([], 1)
        loop.pass_time(child.SECONDS_TO_DIE)
        loop.settle()
    assert problems == ["did not end within 30 s, and cannot be killed"]


def test_stop_does_not_wait_for_a_command_that_cannot_be_killed(
    loop: HandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    with nothing_can_be_killed(monkeypatch), logged() as lines:
        stopped = start(loop, "exec sleep 60", lambda _: pytest.fail("told"))
        stopped.stop(0)
        assert not stopped.running
        stopped.stop(0)
        assert run_and_wait("test", ["/bin/sleep", "60"], {}, seconds=0.1) == (
            "did not end within 0 s, and cannot be killed"
        )
    assert ["cannot be killed" in line for line in lines] == [True]
    assert time.monotonic() - began < 10


def test_a_command_that_ends_just_before_it_is_killed_causes_no_error(
    loop: HandLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_gone(_: int, __: int) -> None:
        raise ProcessLookupError(errno.ESRCH, "No such process")

    problems: list[str | None] = []
    monkeypatch.setattr(os, "killpg", is_gone)
    start(loop, "sleep 0.3", problems.append)
    loop.pass_time(child.SECONDS_TO_RUN)
    loop.until(lambda: problems)
    assert problems == ["did not end within 30 s, and was killed"]


def test_a_command_without_a_pidfd_is_not_left_running(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def refuse(process: int) -> int:
        started.append(process)
        raise OSError(errno.EMFILE, "Too many open files")

    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        start(loop, "exec sleep 60", lambda _: pytest.fail("told"))
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert os.listdir("/proc/self/fd") == before
