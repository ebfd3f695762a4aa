"""Background: the caller's exit status and stderr report the start, and the daemon keeps running."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
from vpntun.errors import VpntunError
from vpntun.process.background import Background
from vpntun.runtime.loop import Loop

wait = None if sys.argv[1] == "None" else float(sys.argv[1])
folder = Path(sys.argv[2])
def note(text):
    with (folder / "notes").open("a") as file:
        file.write(text + "\\n")
try:
    background = Background.enter(wait)
except VpntunError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
(folder / "pid").write_text(str(os.getpid()))
loop = Loop()
"""


class Caller:
    """A shell's view of the command: the process in the foreground."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[subprocess.Popen[str]] = []

    def start(
        self, wait: float | None, daemon: str, before: str = "", descriptors: Sequence[int] = ()
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", before + PROGRAM + daemon, str(wait), str(self.folder)]
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
        )
        self.children.append(started)
        return started

    def run(self, wait: float | None, daemon: str, before: str = "") -> tuple[int, str]:
        """Return the exit status, and the output up to the moment when the daemon gives up the terminal."""
        started = self.start(wait, daemon, before)
        _, said = started.communicate(timeout=20)
        return started.returncode, said

    @property
    def daemon(self) -> int:
        return int((self.folder / "pid").read_text())

    @property
    def notes(self) -> list[str]:
        try:
            return (self.folder / "notes").read_text().splitlines()
        except FileNotFoundError:
            return []


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    made = Caller(tmp_path)
    yield made
    if (tmp_path / "pid").exists():
        with suppress(ProcessLookupError):
            os.kill(made.daemon, signal.SIGKILL)
    for each in made.children:
        each.kill()
        each.communicate()


def until(condition: Callable[[], object]) -> None:
    end = monotonic() + 10
    while not condition():
        assert monotonic() < end
        time.sleep(0.01)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


SERVE = """
loop.run(lambda _: float("inf"), lambda _: None)
"""


def test_the_caller_exits_when_the_device_is_up_and_the_daemon_stays(caller: Caller) -> None:
    assert caller.run(None, "background.device_is_up(loop)" + SERVE) == (0, "")
    assert lives(caller.daemon)


def test_the_daemon_has_no_terminal_the_root_folder_and_its_own_session(caller: Caller) -> None:
    daemon = """
background.device_is_up(loop)
note(" ".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)))
note(os.getcwd())
note(str(os.getsid(0) == os.getpid()))
"""
    assert caller.run(None, daemon)[0] == 0
    until(lambda: len(caller.notes) == 3)
    assert caller.notes == ["/dev/null /dev/null /dev/null", "/", "True"]


def test_the_daemon_keeps_no_descriptor_of_its_caller(caller: Caller) -> None:
    reader, writer = os.pipe()
    with (caller.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = caller.start(None, "background.device_is_up(loop)" + SERVE, descriptors=(lock.fileno(), writer))
        os.close(writer)
        assert started.wait(10) == 0
    assert select.select([reader], [], [], 10)[0], "the pipe is still open"
    assert os.read(reader, 1) == b""
    os.close(reader)
    with (caller.folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert lives(caller.daemon)


def test_the_daemon_keeps_its_own_files_and_what_systemd_hands_over(caller: Caller) -> None:
    before = """
import os
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"}
for number in (3, 4, 50):
    os.dup2(1, number)
log = open("/dev/null")
"""
    daemon = "note(' '.join(sorted(os.listdir('/proc/self/fd')))); note(str(log.fileno()))"
    caller.run(None, daemon, before)
    open_ones = caller.notes[0].split()
    assert {"3", "4", caller.notes[1]} <= set(open_ones)
    assert "50" not in open_ones


@pytest.mark.parametrize(("inherited", "its"), [(0, 0o022), (0o077, 0o077), (0o027, 0o027), (0o777, 0o077)])
def test_the_daemon_leaves_files_open_to_nobody_whose_umask_it_inherits(
    caller: Caller, inherited: int, its: int
) -> None:
    caller.run(None, "note(oct(os.umask(0)))", f"import os; os.umask({inherited})")
    (caller.folder / "notes").chmod(0o600)
    assert caller.notes == [oct(its)]


def test_the_daemon_inherits_no_ignored_and_no_blocked_signal(caller: Caller) -> None:
    before = """
import signal
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
"""
    daemon = "[note(line) for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')]"
    caller.run(None, daemon, before)
    python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    of_the_c_library = 1 << 32 - 1 | 1 << 33 - 1  # nobody can set these two, and the tests' caller may ignore them
    blocked, ignored = (int(line.split()[1], 16) for line in caller.notes if line)
    assert (blocked, ignored & ~of_the_c_library) == (0, python)


def test_with_wait_the_caller_stays_until_the_link_is_up(caller: Caller) -> None:
    daemon = """
background.device_is_up(loop)
def up():
    note("up")
    background.link_is_up()
    background.link_is_up()
loop.call_later(0.3, up)
"""
    assert caller.run(20, daemon + SERVE) == (0, "")
    assert caller.notes == ["up"]
    assert lives(caller.daemon)


def test_with_wait_the_caller_exits_with_9_after_that_time_and_the_daemon_stays(caller: Caller) -> None:
    status, said = caller.run(0.3, "background.device_is_up(loop)\nloop.call_later(1, lambda: note('on'))" + SERVE)
    assert status == 9
    assert said == f"no link within 0.3 s; the daemon, process {caller.daemon}, goes on trying\n"
    until(lambda: caller.notes == ["on"])
    assert lives(caller.daemon)


def test_a_set_up_that_takes_longer_than_the_wait_does_not_delay_the_caller(caller: Caller) -> None:
    started = monotonic()
    assert caller.start(0.3, "time.sleep(30)").wait(timeout=10) == 9
    assert monotonic() - started < 10


@pytest.mark.parametrize("wait", [None, 20])
def test_an_early_failure_reaches_the_caller_with_its_status(caller: Caller, wait: float | None) -> None:
    daemon = "print('no such thing', file=sys.stderr)\nsys.exit(5)"
    assert caller.run(wait, daemon) == (5, "no such thing\n")


def test_a_failure_between_device_and_link_reaches_the_caller_too(caller: Caller) -> None:
    daemon = """
background.device_is_up(loop)
def fail():
    print("gone", file=sys.stderr)
    sys.exit(5)
loop.call_later(0.1, fail)
"""
    assert caller.run(20, daemon + SERVE) == (5, "gone\n")


def test_a_daemon_that_is_killed_early_is_a_failure(caller: Caller) -> None:
    status, said = caller.run(None, "os.kill(os.getpid(), 9)")
    assert status == 1
    assert "signal 9" in said


@pytest.mark.parametrize("wait", [None, 20])
def test_a_daemon_that_is_stopped_before_it_is_ready_is_a_failure(caller: Caller, wait: float | None) -> None:
    status, said = caller.run(wait, "sys.exit(0)")
    assert status == 1
    assert "told to stop before it was ready" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("before", ["", "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)"])
def test_a_signal_to_the_caller_ends_the_daemon_and_then_the_caller(
    caller: Caller, number: signal.Signals, before: str
) -> None:
    started = caller.start(60, "background.device_is_up(loop)\nprint('up', file=sys.stderr)" + SERVE, before)
    assert started.stderr is not None
    assert started.stderr.readline() == "up\n"
    started.send_signal(number)
    assert started.communicate(timeout=10) == ("", "")
    assert started.returncode == -number
    assert not lives(caller.daemon)


def test_a_caller_that_was_started_with_interrupts_ignored_ignores_them(caller: Caller) -> None:
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    started = caller.start(
        20, "loop.call_later(0.3, background.link_is_up)\nprint('up', file=sys.stderr)" + SERVE, ignore
    )
    assert started.stderr is not None
    assert started.stderr.readline() == "up\n"
    started.send_signal(signal.SIGINT)
    assert started.wait(timeout=10) == 0
    assert lives(caller.daemon)


def test_buffered_output_of_the_caller_is_written_once(caller: Caller) -> None:
    program = PROGRAM.replace("try:", "print('before')\ntry:", 1) + "background.device_is_up(loop)\n"
    command = [sys.executable, "-c", program, "None", str(caller.folder)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "before\n"
