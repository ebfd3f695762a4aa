"""Daemons in the background: what their callers learn, and their log and pid files."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.daemons import configured
from tests.netns.lab import PORT, Daemon, Lab, far, start_client, start_server, until


@pytest.fixture
def stop(lab: Lab) -> Callable[[Path], None]:
    """A function that ends the daemon of a pid file and waits until its process is gone."""

    def ended(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    def stop(pidfile: Path) -> None:
        pid = int(pidfile.read_text())
        os.kill(pid, signal.SIGTERM)
        assert until(lambda: ended(pid), 10)

    return stop


def test_daemon_with_wait_returns_once_the_link_is_up(lab: Lab, stop: Callable[[Path], None]) -> None:
    start_server(lab)
    pidfile, log = lab.folder / "pid", lab.folder / "log"
    options = "--daemon", "--wait", "20", "--pidfile", pidfile, "--log-file", log, "--log-format", "json"
    assert lab.a.ask("-c", lab.b.four, "-i", "tun11", "-k", lab.key, *options)[0] == 0
    assert lab.a.run("ping", "-n", "-c1", "-W2", far(lab)).returncode == 0
    said = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line["message"].startswith("connected to ") for line in said)
    assert all(line["interface"] == "tun11" for line in said)
    assert log.stat().st_mode & 0o777 == 0o600
    stop(pidfile)
    assert not pidfile.exists()
    assert not lab.a.has_device("tun11")


def test_a_link_that_is_not_up_in_time_has_its_own_status_and_is_still_tried(
    lab: Lab, stop: Callable[[Path], None]
) -> None:
    pidfile = lab.folder / "pid"
    options = "--daemon", "--wait", "0.5", "--pidfile", pidfile
    status, said = lab.a.ask("-c", lab.b.four, "-i", "tun11", "-k", lab.key, *options)
    assert (status, "goes on trying" in said) == (9, True), said
    assert lab.a.ask("show", "tun11", "--wait", "0")[0] == 9
    start_server(lab)
    status, said = lab.a.ask("show", "tun11", "--wait", "20")
    assert (status, "  state: connected\n" in said) == (0, True), said
    stop(pidfile)


def test_the_caller_of_a_daemon_learns_why_it_could_not_start(lab: Lab) -> None:
    start_server(lab)
    status, said = lab.b.ask("-s", "-i", "tun4", "-k", lab.key, "--daemon")
    assert (status, f"port {PORT}" in said) == (7, True), said
    assert not lab.b.has_device("tun4")


def test_the_caller_of_a_daemon_learns_that_post_up_has_failed(lab: Lab) -> None:
    start_server(lab)
    peer = f"Endpoint = {lab.b.four}:{PORT}"
    path = configured(lab, lab.a, "client", "PostUp = sleep 0.5; exit 3", peer=peer)
    status, said = lab.a.ask("up", path, "--daemon", "--wait", "20")
    assert (status, "line 1 of PostUp failed with status 3" in said) == (10, True), said
    assert not lab.a.has_device("office")


def test_a_daemon_starts_with_its_standard_streams_closed(lab: Lab, stop: Callable[[Path], None]) -> None:
    pidfile, log = lab.folder / "pid", lab.folder / "log"
    options = ["-s", "-i", "tun3", "-k", str(lab.key), "--daemon", "--pidfile", str(pidfile), "--log-file", str(log)]
    script = 'exec "$@" <&- >&- 2>&-'
    done = lab.b.run("sh", "-c", script, "sh", sys.executable, "-m", "vpntun", *options, check=False)
    assert done.returncode == 0
    assert until(lambda: "waiting for the peer" in log.read_text(), 5)
    stop(pidfile)


def test_show_lists_the_tunnels_that_answer_beside_one_that_does_not(lab: Lab) -> None:
    start_server(lab)
    hung = lab.b.vpntun("-s", "-i", "tun4", "-k", lab.key, "-p", "55556")
    hung.wait_for("waiting for the peer")
    hung.process.send_signal(signal.SIGSTOP)
    status, said = lab.b.ask("show")
    assert (status, "interface: tun3" in said, "tun4 (process" in said) == (1, True, True), said
    assert lab.b.ask("show", "tun4", "--wait", "0.5")[0] == 9
    hung.kill()


def test_an_ordinary_user_waits_for_a_tunnel_that_does_not_run_yet(lab: Lab) -> None:
    started = time.monotonic()
    show = sys.executable, "-m", "vpntun", "show", "tun3", "--wait", "1"
    done = lab.b.run(*show, check=False, user="nobody", env={"HOME": str(lab.home())})
    assert done.returncode == 9, done.stderr
    assert time.monotonic() - started >= 1


def test_a_second_daemon_of_the_same_pid_file_is_refused(lab: Lab, stop: Callable[[Path], None]) -> None:
    pidfile = lab.folder / "pid"
    options = "-s", "-k", lab.key, "--daemon", "--pidfile", pidfile
    assert lab.b.ask(*options, "-i", "tun3")[0] == 0
    status, said = lab.b.ask(*options, "-i", "tun4", "-p", "55556")
    assert (status, f"process {pidfile.read_text().strip()} runs already" in said) == (8, True), said
    stop(pidfile)


def test_a_rotated_log_is_reopened_at_sighup(lab: Lab) -> None:
    log = lab.folder / "log"
    server = start_server_with_log(lab, log)
    log.rename(lab.folder / "log.1")
    server.process.send_signal(signal.SIGHUP)
    assert until(log.exists, 5)
    start_client(lab)
    lab.ping(lab.a, far(lab))
    assert until(lambda: "connected to" in log.read_text(), 5)
    assert "connected to" not in (lab.folder / "log.1").read_text()


def start_server_with_log(lab: Lab, log: Path) -> Daemon:
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, "--log-file", log)
    assert until(lambda: log.exists() and "waiting for the peer" in log.read_text(), 10), server
    return server


def test_a_daemon_without_a_file_ignores_a_hangup_and_says_so(lab: Lab, stop: Callable[[Path], None]) -> None:
    pidfile = lab.folder / "pid"
    options = "--daemon", "--wait", "60", "--pidfile", pidfile  # meanwhile it logs to the caller's standard error
    caller = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, *options)
    caller.wait_for("waiting for the peer")
    for count in (1, 2):
        os.kill(int(pidfile.read_text()), signal.SIGHUP)
        caller.wait_for("SIGHUP is ignored", count=count)
    assert lab.b.ask("show", "tun3")[0] == 0
    stop(pidfile)
    assert caller.wait() == 1
