"""Holder of a pid file: found by the lock alone, whatever number the file has, and in other namespaces too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine import NOBODY, needs_root, ordinary_user
from vpntun.errors import ConfigurationError, InterfaceInUse, NotInTime, NotRunning, PrivilegeError
from vpntun.process.holder import find_holder, send_signal
from vpntun.process.pidfile import Pidfile

HOLD = """
import signal, sys
from pathlib import Path
from vpntun.process.pidfile import Pidfile
held = Pidfile(Path(sys.argv[1]))
signal.signal(signal.SIGHUP, lambda *_: print("hangup", flush=True))
if sys.argv[2:]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("held", flush=True)
while True:
    signal.pause()
"""
ASK = """
import sys
from pathlib import Path
from vpntun.process.holder import find_holder
print(find_holder(Path(sys.argv[1])))
"""
END = """
import signal, sys
from pathlib import Path
from vpntun.process.holder import send_signal
send_signal(Path(sys.argv[1]), signal.SIGTERM)
"""
NEW_NAMESPACE = "unshare", "--pid", "--fork", "--kill-child"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vpntun.pid"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """A function that starts a process which holds the pid file, and returns once it does."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        command = [*before, sys.executable, "-c", HOLD, str(path), *options]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(holder)
        assert line_of(holder) == "held"
        return holder

    yield start
    for each in started:
        each.kill()
        each.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the program's name in its command line, as an editor of a configuration file has."""
    with subprocess.Popen(["tail", "-f", "/dev/null", "/etc/vpntun/none"], stderr=subprocess.DEVNULL) as started:
        yield started
        assert started.poll() is None, "a stranger was ended"
        started.kill()


def test_the_holder_is_found_and_ended(path: Path, start: Start) -> None:
    holder = start()
    assert find_holder(path) == holder.pid
    assert send_signal(path, signal.SIGTERM, 10) == holder.pid
    assert holder.wait(10) == -signal.SIGTERM


def test_a_hangup_reaches_the_holder_and_does_not_end_it(path: Path, start: Start) -> None:
    holder = start()
    assert send_signal(path, signal.SIGHUP) == holder.pid
    assert line_of(holder) == "hangup"
    assert find_holder(path) == holder.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_file_left_behind_leads_to_no_stranger(
    path: Path, stranger: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    path.write_text(f"{stranger.pid}\n")
    with pytest.raises(NotRunning, match="no vpntun holds"):
        find_holder(path)
    with pytest.raises(NotRunning, match="no vpntun holds"):
        send_signal(path, number, 1)


def test_the_number_in_a_held_file_does_not_count(path: Path, start: Start, stranger: subprocess.Popen[bytes]) -> None:
    holder = start()
    path.write_text(f"{stranger.pid}\n")
    assert send_signal(path, signal.SIGTERM, 10) == holder.pid


def test_the_file_of_a_killed_daemon_leads_nowhere(path: Path, start: Start) -> None:
    holder = start()
    holder.kill()
    holder.wait(10)
    assert path.read_text() == f"{holder.pid}\n"
    with pytest.raises(NotRunning):
        find_holder(path)


def test_a_lock_of_another_program_is_not_the_daemons(path: Path, stranger: subprocess.Popen[bytes]) -> None:
    path.write_text(f"{stranger.pid}\n")
    with subprocess.Popen(["flock", path, "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1) as locked:
        assert locked.stdout is not None
        locked.stdout.readline()
        with pytest.raises(NotRunning):
            send_signal(path, signal.SIGTERM, 1)
        locked.communicate()


def test_a_daemon_that_does_not_end_in_time_is_an_error_and_can_be_killed(path: Path, start: Start) -> None:
    holder = start("deaf")
    with pytest.raises(NotInTime, match=f"process {holder.pid} has not ended within 0.1 s"):
        send_signal(path, signal.SIGTERM, 0.1)
    send_signal(path, signal.SIGKILL, 10)
    assert holder.wait(10) == -signal.SIGKILL


@needs_root
def test_a_daemon_of_a_container_has_the_number_that_it_has_outside(
    path: Path, start: Start, stranger: subprocess.Popen[bytes]
) -> None:
    start(before=NEW_NAMESPACE)
    assert path.read_text() == "1\n"
    found = find_holder(path)
    assert str(path) in Path(f"/proc/{found}/cmdline").read_text()
    assert send_signal(path, signal.SIGKILL, 10) == found


@needs_root
def test_a_daemon_outside_the_container_is_reported_and_cannot_be_found(path: Path, start: Start) -> None:
    start()
    asked = subprocess.run(
        [*NEW_NAMESPACE, sys.executable, "-c", ASK, path], capture_output=True, text=True, check=False
    )
    assert f"{InterfaceInUse.__name__}: {path} is held by a process of another PID namespace" in asked.stderr


def test_a_missing_file_a_folder_and_a_link_are_told_apart(path: Path) -> None:
    with pytest.raises(NotRunning, match="there is no such file"):
        find_holder(path)
    held = Pidfile(path)
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="is not a pid file"):
        find_holder(link)
    with pytest.raises(NotRunning):
        find_holder(path.parent)
    held.remove()


def test_a_file_that_may_not_be_read_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        (folder / "pid").touch(mode=0)
        with pytest.raises(PrivilegeError):
            find_holder(folder / "pid")


@needs_root
def test_only_root_may_end_a_daemon_of_another_user() -> None:
    with ordinary_user() as folder:
        os.seteuid(0)
        named = folder / "vpntun.pid"
        with subprocess.Popen([sys.executable, "-c", HOLD, named], stdout=-1, text=True) as holder:
            assert line_of(holder) == "held"
            asked = subprocess.run(
                ["setpriv", f"--reuid={NOBODY}", "--clear-groups", sys.executable, "-c", END, named],
                capture_output=True,
                text=True,
                check=False,
            )
            ended = holder.poll()
            holder.kill()
    assert f"{PrivilegeError.__name__}: process {holder.pid} belongs to another user" in asked.stderr
    assert ended is None
