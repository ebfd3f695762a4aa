"""A run from the first link to its end, with a real command and a holder that the test plays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.machine import HandLoop, logged
from vpntun.errors import NotInTime
from vpntun.namespace import command as command_module
from vpntun.namespace.command import Command
from vpntun.namespace.holder import Holder
from vpntun.namespace.messages import Channel
from vpntun.namespace.surroundings import Run


class Course:
    """A run of a shell's script in a folder, of which nobody is in a namespace. None: a run without a command."""

    def __init__(
        self, loop: HandLoop, stack: ExitStack, folder: Path, script: str | None, wait: float | None = None
    ) -> None:
        self.loop, self.folder = loop, folder
        ours, self._its = Channel.pair()
        ours.never_wait()
        self._its.never_wait()
        stack.callback(self._its.close)
        holder = Holder(ours, 0)
        holder.folder = os.open(folder, os.O_PATH)
        self.run = Run(holder, Command.fork(["sh", "-c", script], holder) if script is not None else None, wait)
        stack.callback(holder.close)
        holder.attach(loop, lambda: None)
        self.run.begin(loop, stack)

    def answer(self, count: int) -> None:
        """Answer the next question with a count of connections whose last data is on its way."""
        self.loop.until(self._ask)
        request: dict[str, Any] = self._asked
        assert request["what"] == "count_unsent"
        self._its.send({"request": request["request"], "done": {"count": count}})

    def _ask(self) -> bool:
        try:
            received = self._its.receive()
        except BlockingIOError:
            return False
        assert received is not None
        self._asked = received[0]
        return True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_command_begins_with_the_first_link_and_its_end_is_the_runs(
    loop: HandLoop, stack: ExitStack, tmp_path: Path
) -> None:
    course = Course(loop, stack, tmp_path, "echo began >> log; exit 7")
    course.run.device_is_up(loop)
    loop.settle()
    assert not (tmp_path / "log").exists()
    course.run.link_is_up()
    course.run.link_is_up()
    course.answer(0)
    loop.until(lambda: not loop.running)
    assert course.run.status == 7
    assert (tmp_path / "log").read_text() == "began\n"


def test_the_run_ends_when_the_last_data_has_arrived(loop: HandLoop, stack: ExitStack, tmp_path: Path) -> None:
    course = Course(loop, stack, tmp_path, "exit 0")
    course.run.link_is_up()
    for count in (2, 1):
        course.answer(count)
        loop.settle()
        assert loop.running
        loop.pass_time(0.1)
    course.answer(0)
    loop.until(lambda: not loop.running)
    assert course.run.status == 0


def test_it_does_not_wait_for_ever_if_data_never_arrives_or_the_holder_does_not_answer(
    loop: HandLoop, stack: ExitStack, tmp_path: Path
) -> None:
    course = Course(loop, stack, tmp_path, "exit 0")
    course.run.link_is_up()
    course.answer(1)
    loop.settle()
    loop.pass_time(0.1)
    assert loop.running
    loop.pass_time(5)
    assert not loop.running


def test_a_run_says_that_it_waits_and_gives_up_in_time(loop: HandLoop, stack: ExitStack, tmp_path: Path) -> None:
    Course(loop, stack, tmp_path, "exit 0", wait=7.0)
    with logged() as lines:
        loop.pass_time(5)
    assert lines == ["no link yet: sh begins once there is one (-v says more)"]
    with pytest.raises(NotInTime, match="no link within 7 s: sh was not started"):
        loop.pass_time(2)


def test_a_run_without_a_command_gives_up_in_time_too(loop: HandLoop, stack: ExitStack, tmp_path: Path) -> None:
    Course(loop, stack, tmp_path, None, wait=2.0)
    with pytest.raises(NotInTime, match=r"no link within 2 s \(-v says more\)"):
        loop.pass_time(3)


def test_a_run_with_a_link_neither_says_nor_gives_up_anything(loop: HandLoop, stack: ExitStack, tmp_path: Path) -> None:
    course = Course(loop, stack, tmp_path, "sleep 100", wait=7.0)
    course.run.link_is_up()
    with logged() as lines:
        loop.pass_time(100)
    assert lines == []
    assert loop.running


def test_the_command_ends_with_a_tunnel_that_ends_first(
    loop: HandLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_module, "SECONDS_TO_END", 1000.0)
    with ExitStack() as stack:
        course = Course(loop, stack, tmp_path, "echo > began; exec sleep 100")
        course.run.link_is_up()
        loop.until((tmp_path / "began").exists)
    assert course.run.status == 128 + signal.SIGTERM
