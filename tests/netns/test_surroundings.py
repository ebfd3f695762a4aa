"""What the program inherits from the one that starts it: descriptors, signals and streams do not harm the tunnel."""

from __future__ import annotations

import fcntl
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.netns.lab import STARTED, Daemon, Lab, until

START = """
import os, signal, sys
{before}
os.execv(sys.executable, [sys.executable, "-m", "vpntun", *sys.argv[1:]])
"""
IGNORED = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
BLOCKED = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())"


def start(lab: Lab, before: str, *arguments: str | Path) -> Daemon:
    """Start vpntun in b, after some code in the process that becomes vpntun."""
    return lab.b.popen(sys.executable, "-c", START.format(before=before), *arguments)


def configured(lab: Lab, *lines: str) -> Path:
    path = lab.folder / "office.conf"
    path.touch(mode=0o600)
    path.write_text("\n".join(["[Interface]", f"SharedKey = {lab.key}", "Role = server", *lines]) + "\n")
    return path


@pytest.mark.parametrize("before", [IGNORED, BLOCKED], ids=["ignored", "blocked"])
def test_a_tunnel_ends_at_sigterm_even_if_signals_were_ignored_or_blocked(lab: Lab, before: str) -> None:
    path = configured(lab, "PostUp = grep -E '^Sig(Blk|Ign)' /proc/self/status", "PreDown = exit 3")
    server = start(lab, before, "up", path)
    server.wait_for("waiting for the peer")
    server.wait_for("PostUp: SigIgn")
    assert server.stop() == 0
    (_, blocked), (_, ignored) = re.findall(r"PostUp: (Sig\w+):\\t(\w+)", server.log)
    assert int(blocked, 16) == 0
    assert not int(ignored, 16) & (1 << signal.SIGTERM - 1 | 1 << signal.SIGCHLD - 1)
    assert "line 1 of PreDown failed with status 3" in server.log


def test_a_failed_hook_is_noticed_even_if_the_end_of_child_processes_was_ignored(lab: Lab) -> None:
    server = start(lab, IGNORED, "up", configured(lab, "PreUp = exit 3"))
    assert server.wait() == 10
    assert "line 1 of PreUp failed with status 3" in server.log


def test_a_daemon_holds_no_lock_of_its_caller_and_its_hooks_hold_nothing_of_the_daemons(lab: Lab) -> None:
    lock = lab.folder / "lock"
    path = configured(lab, "PostUp = ls -l /proc/$$/fd; true")
    options = "up", path, "--daemon", "--pidfile", lab.folder / "pid", "--log-file", lab.folder / "log"
    caller = start(lab, f"os.set_inheritable(os.open({str(lock)!r}, os.O_CREAT | os.O_RDWR), True)", *options)
    assert caller.wait() == 0
    daemon = (lab.folder / "pid").read_text().strip()
    assert str(lock) not in lab.b.run("ls", "-l", f"/proc/{daemon}/fd").stdout
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    opened = [line for line in (lab.folder / "log").read_text().splitlines() if " -> " in line]
    assert [line.split()[-3] for line in opened] == ["0", "1", "2"]
    assert lab.b.ask("down", "office") == (0, "")


def test_a_tunnel_in_the_foreground_starts_with_its_standard_streams_closed(lab: Lab) -> None:
    log = lab.folder / "log"
    command = [sys.executable, "-m", "vpntun", "-s", "-i", "tun3", "-k", str(lab.key), "--log-file", str(log)]
    server = lab.b.popen("sh", "-c", f"exec {shlex.join(command)} <&- >&- 2>&-")
    assert until(lambda: log.exists() and STARTED in log.read_text(), 10)
    streams = [f"/proc/{server.process.pid}/fd/{number}" for number in range(3)]
    assert lab.b.run("readlink", *streams).stdout.split() == ["/dev/null"] * 3
    assert server.stop() == 0


def test_process_1_of_a_container_collects_the_orphans_of_its_hooks_and_ends_at_sigterm(lab: Lab) -> None:
    pids = lab.folder / "pids"
    orphans = f"(sleep 0.2; exit 3) >/dev/null 2>&1 & echo $! >>{pids}"
    path = configured(lab, f"PreUp = {orphans}", f"PostUp = {orphans}", "PostDown = exec sleep 60")
    contained = "unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "vpntun"
    server = lab.b.popen(*contained, "up", path)
    server.wait_for("waiting for the peer")
    [inner] = lab.b.run("pgrep", "--parent", str(server.process.pid)).stdout.split()
    assert until(lambda: len(pids.read_text().split()) == 2, 5)
    assert until(lambda: not lab.b.run("pgrep", "--parent", inner, check=False).stdout, 5)
    for _ in range(2):  # the second one does not wait for PostDown
        lab.b.run("kill", inner)
        until(lambda: not lab.b.has_device("office"), 5)
    assert server.wait() == 143


def test_a_tunnel_whose_start_waits_for_pre_up_ends_at_sigterm(lab: Lab) -> None:
    path = configured(lab, "PreUp = echo begun; sleep 60", "PreUp = echo too late", "PostDown = echo undone")
    server = lab.b.popen(sys.executable, "-c", IMPATIENT, "up", path)
    server.wait_for("begun")
    assert server.stop() == 0
    assert "undone" in server.log
    assert "too late" not in server.log
    assert not lab.b.has_device("office")


IMPATIENT = """
import vpntun.process.shell
from vpntun.__main__ import main
vpntun.process.shell.PATIENCE_AT_THE_END = 0.1
main()
"""
