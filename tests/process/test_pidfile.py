"""The pid file: complete from the start, refused while its daemon lives, replaced after that, and never by mistake."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import needs_root, ordinary_user
from vpntun.errors import ConfigurationError, InterfaceInUse, PrivilegeError
from vpntun.process.pidfile import Pidfile

RIVAL = """
import sys, time
from pathlib import Path
from vpntun.errors import VpntunError
from vpntun.process.pidfile import Pidfile
sys.stdin.readline()
try:
    held = Pidfile(Path(sys.argv[1]))
    print("held", flush=True)
    sys.stdin.readline()
    held.remove()
except VpntunError as error:
    print("refused", flush=True)
"""

# It ends without taking its file away, and what it has run lives on.
LEAVES_A_CHILD = """
import subprocess, sys
from pathlib import Path
from vpntun.process.pidfile import Pidfile
held = Pidfile(Path(sys.argv[1]))
child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False)
print(child.pid)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vpntun.pid"


def test_the_file_holds_the_process_id_and_is_removed_at_the_end(path: Path) -> None:
    held = Pidfile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    held.remove()
    assert list(path.parent.iterdir()) == []


def test_the_file_of_a_living_daemon_is_refused_and_left_alone(path: Path) -> None:
    held = Pidfile(path)
    with pytest.raises(InterfaceInUse, match=f"process {os.getpid()} runs already"):
        Pidfile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    assert list(path.parent.iterdir()) == [path]
    held.remove()


@pytest.mark.parametrize("left", ["1\n", "999999999", "", "\n"])
def test_a_file_left_behind_is_replaced_whichever_process_has_its_number_now(path: Path, left: str) -> None:
    path.write_text(left)
    held = Pidfile(path)
    assert path.read_text() == f"{os.getpid()}\n"
    held.remove()


@pytest.mark.parametrize("kind", [stat.S_IFIFO, pytest.param(stat.S_IFCHR, marks=needs_root)], ids=["pipe", "null"])
def test_what_is_not_a_regular_file_is_never_replaced(path: Path, kind: int) -> None:
    os.mknod(path, kind | 0o600, os.makedev(1, 3))  # as if the option were --pidfile /dev/null
    with pytest.raises(ConfigurationError, match="is not a pid file"):
        Pidfile(path)
    assert stat.S_IFMT(path.stat().st_mode) == kind


@pytest.mark.parametrize("content", ["root:x:0:0::/root:/bin/sh\n", "12 13\n", "-1\n", "1" * 100, "\xff"])
def test_a_file_that_is_not_a_pid_file_is_not_overwritten(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="is not a pid file"):
        Pidfile(path)
    assert path.read_text() == content


def test_a_link_a_folder_and_a_missing_folder_are_refused(path: Path) -> None:
    path.symlink_to(path.with_name("target"))
    for name in (path, path.parent, path.parent / "none" / "pid", Path("/"), Path(".")):
        with pytest.raises(ConfigurationError):
            Pidfile(name)
    assert not path.with_name("target").exists()


def test_a_folder_that_the_user_may_not_write_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        (folder / "closed").mkdir(mode=0o500)
        with pytest.raises(PrivilegeError):
            Pidfile(folder / "closed" / "pid")


@needs_root
def test_a_file_that_may_no_longer_be_removed_is_left_empty(path: Path) -> None:
    held = Pidfile(path)
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        held.remove()
        os._exit(0)
    os.waitpid(pid, 0)
    assert path.read_text() == ""
    held.remove()


def test_a_file_that_somebody_put_in_its_place_stays(path: Path) -> None:
    held = Pidfile(path)
    path.unlink()
    path.write_text("7\n")
    held.remove()
    assert path.read_text() == "7\n"


def test_a_file_removed_meanwhile_is_no_error(path: Path) -> None:
    held = Pidfile(path)
    path.unlink()
    held.remove()
    assert list(path.parent.iterdir()) == []


def test_child_processes_do_not_keep_the_file_locked(path: Path) -> None:
    command = [sys.executable, "-c", LEAVES_A_CHILD, str(path)]
    child = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    try:
        Pidfile(path).remove()
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_relative_name_still_works_after_a_change_of_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    held = Pidfile(Path(path.name))
    monkeypatch.chdir("/")
    held.remove()
    assert not path.exists()


@pytest.mark.parametrize("left", [None, "1\n"])
def test_exactly_one_of_many_that_start_at_once_gets_the_file(path: Path, left: str | None) -> None:
    if left is not None:
        path.write_text(left)
    command = [sys.executable, "-c", RIVAL, str(path)]
    rivals = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    said = [rival.stdout.readline().strip() for rival in rivals if rival.stdout is not None]
    holder = rivals[said.index("held")].pid
    assert path.read_text() == f"{holder}\n"
    with path.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for rival in rivals:
        rival.communicate("end\n")
    assert sorted(said) == ["held"] + ["refused"] * 5
    assert list(path.parent.iterdir()) == []
