"""The command of a run as a child process: when it begins, what it becomes, and how it ends."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import HandLoop
from vpntun.errors import CommandNotFound, CommandNotRun
from vpntun.namespace import command
from vpntun.namespace.command import Command
from vpntun.namespace.holder import Holder
from vpntun.namespace.messages import Channel


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    """A holder that has made no namespace: the command stays where it is."""
    ours, its = Channel.pair()
    holder = Holder(ours, os.getpid())
    holder.folder = os.open(tmp_path, os.O_PATH)
    yield holder
    holder.close()
    its.close()


class Running:
    """A command that the loop watches."""

    def __init__(self, loop: HandLoop, holder: Holder, *arguments: str) -> None:
        self.loop, self.holder = loop, holder
        self.ends = 0
        self.command = Command.fork(arguments, holder)
        self.command.attach(loop, self._note)

    def start(self) -> None:
        self.command.start(self.holder)

    def status(self) -> int | None:
        """Wait for the end, and return the status."""
        self.loop.until(lambda: self.ends, "for the end of the command")
        self.command.close()
        assert self.ends == 1
        return self.command.status

    def _note(self) -> None:
        self.ends += 1


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_status_is_the_programs_as_a_shell_reports_it(
    loop: HandLoop, holder: Holder, script: str, status: int
) -> None:
    running = Running(loop, holder, "sh", "-c", script)
    running.start()
    assert running.status() == status


def test_the_program_begins_at_the_word_in_the_folder_of_the_namespace(
    loop: HandLoop, holder: Holder, tmp_path: Path
) -> None:
    running = Running(loop, holder, "sh", "-c", "pwd > made")
    loop.settle()
    assert not (tmp_path / "made").exists()
    running.start()
    running.start()
    assert running.status() == 0
    assert (tmp_path / "made").read_text() == f"{tmp_path}\n"


def test_the_program_gets_the_signal_actions_that_python_has_changed_back(
    loop: HandLoop, holder: Holder, tmp_path: Path
) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The last eight digits are signals 1 to 32, and the C library has 32 to itself.
    running = Running(loop, holder, "grep", "-e", "^SigIgn:.*[08]0000001$", "/proc/self/status")
    signal.signal(signal.SIGHUP, former)
    running.start()
    assert running.status() == 0


def test_a_program_that_is_not_there_or_cannot_be_executed_is_an_error(
    loop: HandLoop, holder: Holder, tmp_path: Path
) -> None:
    missing = Running(loop, holder, "no-such-program")
    missing.start()
    with pytest.raises(CommandNotFound, match=r"^no-such-program: there is no such command$"):
        missing.status()
    (tmp_path / "text").touch()
    text = Running(loop, holder, str(tmp_path / "text"))
    text.start()
    with pytest.raises(CommandNotRun, match=r"text cannot be executed: Permission denied$"):
        text.status()
    for running in (missing, text):
        assert running.status() in (126, 127)


def test_a_command_that_was_never_started_ends_with_its_parent(loop: HandLoop, holder: Holder, tmp_path: Path) -> None:
    forked = Command.fork(["touch", str(tmp_path / "made")], holder)
    forked.close()
    os.waitpid(forked.process, 0)
    assert not (tmp_path / "made").exists()


def test_a_command_that_does_not_end_at_sigterm_is_killed(
    loop: HandLoop, holder: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "SECONDS_TO_END", 0.1)
    script = "import signal, time; signal.signal(15, 1); open('ready', 'x'); time.sleep(100)"
    running = Running(loop, holder, sys.executable, "-c", script)
    running.start()
    loop.until((tmp_path / "ready").exists)
    loop.clock.ticks = 0.01
    running.command.end(loop)
    assert running.command.status == 128 + signal.SIGKILL
    running.command.close()


def test_a_stopped_program_is_noticed_once(loop: HandLoop, holder: Holder) -> None:
    running = Running(loop, holder, "sleep", "100")
    running.start()
    assert not running.command.has_stopped()
    running.command.signal(signal.SIGSTOP)
    loop.until(running.command.has_stopped)
    assert not running.command.has_stopped()
    running.command.signal(signal.SIGCONT)
    running.command.signal(signal.SIGTERM)
    assert running.status() == 143
