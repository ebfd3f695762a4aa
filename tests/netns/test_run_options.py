"""Options for running any tunnel: user, background, hook commands, log and pid files, signals, and systemd."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.netns.lab import NOBODY, PORT, Daemon, Lab, Machine, far, start_client, start_pair, start_server, until
from vpntun.config.tunnel import DEFAULT_MTU

NET_ADMIN = 1 << 12
HOOK = """#!/bin/sh
echo "$VPNTUN_EVENT" "$VPNTUN_INTERFACE" "$VPNTUN_PEER" "$VPNTUN_ENDPOINT" "$VPNTUN_MTU" "$(id -u)" >>{book}
"""


def privileges(pid: int) -> dict[str, list[str]]:
    """The kernel's status of a process, with its users, groups and capabilities."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def runs_as_nobody(daemon: Daemon, capabilities: int) -> bool:
    """Whether the process has the user and groups of nobody, and exactly these capabilities."""
    status = privileges(daemon.process.pid)
    ours = [status["Uid"], status["Gid"], status["NoNewPrivs"]] == [[str(NOBODY)] * 4, [str(NOBODY)] * 4, ["1"]]
    held = [int(status[name][0], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")]
    return ours and held == [0, capabilities, capabilities, 0] and "0" not in status["Groups"]


def configured(lab: Lab, machine: Machine, role: str, *lines: str, peer: str = "") -> Path:
    """Write the configuration file of a tunnel named office that uses the lab's shared key."""
    folder = lab.folder / machine.name
    folder.mkdir()
    path = folder / "office.conf"
    path.touch(mode=0o600)
    secret = f"SharedKey = {lab.key}"
    path.write_text("\n".join(["[Interface]", secret, f"Role = {role}", *lines, "[Peer]", peer]) + "\n")
    return path


@pytest.fixture
def hook(lab: Lab) -> tuple[str, Path]:
    """A hook command that records what it is passed, and the file that it appends to."""
    folder = lab.home(user=0)
    folder.chmod(0o755)
    command, book = folder / "hook", folder / "book"
    command.write_text(HOOK.format(book=book))
    command.chmod(0o755)
    book.touch()
    book.chmod(0o666)
    return str(command), book


class FakeSystemd:
    """A notification socket in systemd's place. A thread reads it, because the kernel queues few unread datagrams."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path)}
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while said := self._socket.recv(4096):
            self.said += said.decode().split("\n")

    def hears(self, text: str, seconds: float = 20) -> bool:
        """Whether a message with this line has arrived or arrives within this time."""
        return until(lambda: text in self.said, seconds)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._reader.join()
        self._socket.close()


@pytest.fixture
def systemd(lab: Lab) -> Iterator[FakeSystemd]:
    systemd = FakeSystemd(lab.folder / "notify")
    yield systemd
    systemd.close()


# Least privilege


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_both_ends_work_as_a_user_without_any_capability(lab: Lab, transport: str) -> None:
    daemons = start_pair(lab, "--user", "nobody", "--transport", transport)
    lab.ping(lab.a, far(lab))
    lab.transfer(5_000_000, far(lab))
    assert all(runs_as_nobody(daemon, 0) for daemon in daemons)
    for daemon in daemons:
        assert "running as nobody now, without any capability" in daemon.log
        assert daemon.stop() == 0
        assert "Traceback" not in daemon.log
    assert not lab.a.has_device("tun11")


def test_a_client_that_gave_up_root_reconnects(lab: Lab) -> None:
    server = start_server(lab, "--user", "nobody")
    start_client(lab, "--user", "nobody", "--transport", "tcp")
    lab.ping(lab.a, far(lab))
    assert server.stop() == 0
    start_server(lab, "--user", "nobody")
    lab.ping(lab.a, far(lab), within=10)


def test_a_server_that_gave_up_root_remembers_its_clients_endpoint(lab: Lab) -> None:
    server, _ = start_pair(lab, "--transport", "udp", "--user", "nobody")
    lab.ping(lab.a, far(lab))
    assert server.stop() == 0
    start_server(lab, "--transport", "udp", "--user", "nobody")
    lab.ping(lab.a, far(lab), within=10)


def test_the_control_socket_of_a_daemon_that_gave_up_root_belongs_to_root(lab: Lab) -> None:
    start_server(lab, "--user", "nobody")
    assert "interface: tun3" in lab.b.ask("show", "tun3")[1]
    assert lab.b.ask("down", "tun3") == (0, "")
    start_server(lab, "--user", "nobody")


def test_a_daemon_that_must_undo_changes_to_an_existing_device_keeps_one_capability(lab: Lab) -> None:
    lab.b.run("ip", "tuntap", "add", "dev", "tun3", "mode", "tun")
    server = start_server(lab, "--user", "nobody", "--address", "192.168.9.2/24", "--mtu", "1400")
    assert runs_as_nobody(server, NET_ADMIN)
    assert "with CAP_NET_ADMIN alone" in server.log
    assert server.stop() == 0
    assert lab.b.addresses("tun3") == []
    assert "mtu 1500" in lab.b.run("ip", "link", "show", "dev", "tun3").stdout


def test_a_full_tunnel_is_undone_by_the_user(lab: Lab) -> None:
    start_server(lab)
    before = [lab.a.run("ip", version, "rule").stdout for version in ("-4", "-6")]
    full = f"Endpoint = {lab.b.four}:{PORT}\nAllowedIPs = 0.0.0.0/0, ::/0"
    client = lab.a.vpntun("up", configured(lab, lab.a, "client", "User = nobody", peer=full))
    client.wait_for("connected to")
    assert runs_as_nobody(client, NET_ADMIN)
    lab.ping(lab.a, far(lab))
    assert "32402" in lab.a.run("ip", "-4", "rule").stdout
    assert client.stop() == 0
    assert [lab.a.run("ip", version, "rule").stdout for version in ("-4", "-6")] == before


def test_post_up_lines_run_as_root_and_down_lines_as_the_user(lab: Lab) -> None:
    lines = [f"{when} = echo {when} is $(id -u)" for when in ("PreUp", "PostUp", "PreDown", "PostDown")]
    server = lab.b.vpntun("up", configured(lab, lab.b, "server", "User = nobody", *lines))
    server.wait_for("waiting for the peer")
    assert server.stop() == 0
    assert re.findall(r"(\w+) is (\d+)", server.log) == [
        ("PreUp", "0"),
        ("PostUp", "0"),
        ("PreDown", str(NOBODY)),
        ("PostDown", str(NOBODY)),
    ]


def test_a_file_that_the_user_cannot_read_is_reported_at_once_and_a_reload_changes_nothing(lab: Lab) -> None:
    path = configured(lab, lab.b, "server", "User = nobody")
    server = lab.b.vpntun("up", path)
    server.wait_for(f"nobody cannot read {path} again at SIGHUP")
    server.wait_for("waiting for the peer")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("nothing has changed")
    assert server.running


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        (["--user", "nosuch"], 3, "there is no user 'nosuch'"),
        (["--user", "root"], 3, "root cannot be the user"),
        (["--up", "/nonexistent/command"], 3, "/nonexistent"),
        (["--up", "false"], 10, "the tunnel is not started"),
        (["--wait", "3"], 2, "--wait requires --daemon"),
        (["--daemon", "--wait", "-1"], 2, "not a time to wait"),
        (["--log-file", "/nonexistent/log"], 3, "the log file"),
        (["--pidfile", "/nonexistent/pid"], 3, "the pid file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_run_option_is_refused_and_nothing_is_left(
    lab: Lab, options: list[str], status: int, says: str
) -> None:
    ended, said = lab.b.ask("-s", "-i", "tun3", "-k", lab.key, *options)
    assert (ended, says in said) == (status, True), said
    assert not lab.b.has_device("tun3")


def test_name_servers_and_a_user_are_refused_together(lab: Lab) -> None:
    path = configured(lab, lab.b, "server", "User = nobody", "DNS = 192.0.2.53")
    status, said = lab.b.ask("up", path)
    assert (status, "leave out either the user or DNS" in said) == (3, True), said


# The end, and reloads


def test_a_running_post_up_line_finishes_before_the_tunnel_is_taken_down(lab: Lab) -> None:
    lines = "PostUp = echo begun; sleep 0.5; echo PostUp is over", "PreDown = echo PreDown", "PostDown = echo PostDown"
    server = lab.b.vpntun("up", configured(lab, lab.b, "server", *lines))
    server.wait_for("begun")
    assert server.stop() == 0
    assert re.findall(r"PostUp is over|PreDown: PreDown|PostDown: PostDown", server.log) == [
        "PostUp is over",
        "PreDown: PreDown",
        "PostDown: PostDown",
    ]


def test_a_tunnel_that_is_stopped_during_its_set_up_does_not_start(lab: Lab) -> None:
    lines = "PreUp = echo begun; sleep 0.5", "PostUp = echo too late", "PostDown = echo undone"
    server = lab.b.vpntun("up", configured(lab, lab.b, "server", *lines))
    server.wait_for("begun")
    assert server.stop() == 0
    assert "too late" not in server.log
    assert "undone" in server.log


def test_the_end_after_a_deleted_device_runs_hooks_and_notifies_systemd(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server", "PreDown = echo before", "PostDown = echo behind")
    server = lab.b.vpntun("up", path, env=systemd.environment)
    assert systemd.hears("READY=1"), server
    lab.b.run("ip", "link", "del", "office")
    assert server.wait() == 5
    assert server.log.index("before") < server.log.index("behind")
    assert systemd.hears("STOPPING=1")


def test_a_reload_during_the_start_does_not_make_systemd_think_it_is_ready(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server", "PostUp = echo begun; sleep 1; exit 3")
    server = lab.b.vpntun("up", path, env=systemd.environment)
    server.wait_for("begun")
    server.process.send_signal(signal.SIGHUP)
    assert server.wait() == 10
    assert "read the configuration again" in server.log
    assert systemd.hears("STOPPING=1")
    assert "READY=1" not in systemd.said


def test_a_reload_that_adds_an_endpoint_is_refused_without_a_socket_for_calls(lab: Lab) -> None:
    private, _ = lab.new_identity("hub.key")
    _, public = lab.new_identity("caller.key")
    path = lab.folder / "hub.conf"
    path.touch(mode=0o600)
    path.write_text(f"[Interface]\nPrivateKey = {private.read_text()}\nListenPort = {PORT}\nTransport = tcp\n")
    server = lab.b.vpntun("up", path)
    server.wait_for("waiting for")
    path.write_text(path.read_text() + f"[Peer]\nPublicKey = {public}\nEndpoint = {lab.a.four}:1\nTransport = tcp\n")
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("restart the tunnel to add an Endpoint; nothing has changed")
    assert server.running


def test_a_reload_that_changes_table_asks_for_a_restart_and_keeps_the_routes(lab: Lab) -> None:
    peer = f"Endpoint = {lab.b.four}:{PORT}\nAllowedIPs = 192.168.50.0/24"
    path = configured(lab, lab.a, "client", "Table = auto", peer=peer)
    client = lab.a.vpntun("up", path)
    assert until(lambda: "192.168.50.0/24" in lab.a.run("ip", "route").stdout, 10), client
    path.write_text(path.read_text().replace("auto", "off"))
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("need a restart")
    client.wait_for("read the configuration again")
    assert "192.168.50.0/24" in lab.a.run("ip", "route").stdout


def test_a_reload_does_not_lead_the_tunnels_own_packets_into_it(lab: Lab) -> None:
    peer = f"Endpoint = {lab.b.four}:{PORT}\nAllowedIPs = 192.168.50.0/24"
    path = configured(lab, lab.a, "client", peer=peer)
    client = lab.a.vpntun("up", path)
    client.wait_for("this end")
    path.write_text(path.read_text().replace("192.168.50.0/24", "10.0.0.0/8"))
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("must carry a mark from the start: stop it, and start it again; nothing has changed")
    assert "dev veth0" in lab.a.run("ip", "route", "get", lab.b.four).stdout


# Hooks


def test_hooks_run_when_the_tunnel_and_its_link_come_up_and_go_down(lab: Lab, hook: tuple[str, Path]) -> None:
    command, book = hook
    start_server(lab)
    options = [each for event in ("up", "down", "link-up", "link-down") for each in (f"--{event}", command)]
    client = start_client(lab, *options, "--user", "nobody")
    assert until(lambda: "link-up" in book.read_text(), 10), client
    assert client.stop() == 0
    first, second, last = book.read_text().splitlines()
    assert first == f"up tun11   {DEFAULT_MTU} 0"
    assert re.fullmatch(rf"link-up tun11 \S{{43}}= {lab.b.four}:{PORT} {DEFAULT_MTU} {NOBODY}", second)
    assert last == f"down tun11   {DEFAULT_MTU} {NOBODY}"


def test_a_hook_that_others_can_write_is_not_run(lab: Lab, hook: tuple[str, Path]) -> None:
    command, book = hook
    Path(command).chmod(0o777)
    status, said = lab.b.ask("-s", "-i", "tun3", "-k", lab.key, "--up", command)
    assert (status, command in said, book.read_text()) == (3, True, ""), said


# In the background


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


# Signals that do not end a tunnel, and the terminal


def test_a_closed_terminal_ends_a_tunnel_as_sigterm_does(lab: Lab, hook: tuple[str, Path]) -> None:
    command, book = hook
    lab.b.run(sys.executable, "-m", "vpntun", "mktun", "tun3")
    arguments = "-s", "-i", "tun3", "-k", lab.key, "--address", "192.0.2.1/24", "--down", command
    daemon = lab.b.popen(sys.executable, "-c", IN_A_TERMINAL, sys.executable, "-m", "vpntun", *arguments)
    daemon.wait_for("waiting for the peer")
    assert lab.b.addresses("tun3") == ["192.0.2.1/24"]
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.wait_for("ended with status 0")
    assert lab.b.addresses("tun3") == []
    assert book.read_text().split()[:2] == ["down", "tun3"]


IN_A_TERMINAL = """
import os, pty, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
pid, terminal = pty.fork()
if not pid:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    os.execvp(sys.argv[1], sys.argv[1:])
said = b""
while b"waiting for the peer" not in said:
    said += os.read(terminal, 4096)
print(said.decode(), flush=True)
signal.sigwait([signal.SIGUSR1])
os.close(terminal)
print("ended with status", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
"""Runs a program in its own terminal, and closes the terminal at SIGUSR1."""


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


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_users_signals_change_nothing(lab: Lab, number: signal.Signals) -> None:
    server, client = start_pair(lab)
    for daemon in (server, client):
        daemon.process.send_signal(number)
    lab.ping(lab.a, far(lab))
    assert (server.stop(), client.stop()) == (0, 0)


# Notifications to systemd


def test_systemd_is_notified_of_a_servers_start_link_and_end(lab: Lab, systemd: FakeSystemd) -> None:
    environment = {**systemd.environment, "WATCHDOG_USEC": "200000"}
    server = lab.b.vpntun("-s", "-i", "tun3", "-k", lab.key, env=environment)
    assert systemd.hears("READY=1"), server
    assert "STATUS=not connected" in systemd.said
    start_client(lab)
    assert systemd.hears("STATUS=connected"), server
    systemd.said.clear()
    assert systemd.hears("WATCHDOG=1", 2)
    assert server.stop() == 0
    assert systemd.hears("STOPPING=1")


def test_systemd_considers_a_client_ready_once_its_link_is_up(lab: Lab, systemd: FakeSystemd) -> None:
    client = lab.a.vpntun("-c", lab.b.four, "-i", "tun11", "-k", lab.key, env=systemd.environment)
    assert systemd.hears("STATUS=not connected"), client
    assert not systemd.hears("READY=1", 1)
    start_server(lab)
    assert systemd.hears("READY=1"), client
    assert "STATUS=connected" in systemd.said


def test_systemd_is_notified_of_each_reload(lab: Lab, systemd: FakeSystemd) -> None:
    server = lab.b.vpntun("up", configured(lab, lab.b, "server"), env=systemd.environment)
    assert systemd.hears("READY=1"), server
    systemd.said.clear()
    server.process.send_signal(signal.SIGHUP)
    assert systemd.hears("RELOADING=1"), server
    assert systemd.hears("READY=1"), server


def test_systemd_is_notified_of_the_end_of_a_reload_that_failed_unexpectedly(lab: Lab, systemd: FakeSystemd) -> None:
    path = configured(lab, lab.b, "server")
    server = lab.b.popen(sys.executable, "-c", FAILS_TO_RELOAD, "up", path, env=systemd.environment)
    server.expects_bugs = True
    assert systemd.hears("READY=1"), server
    systemd.said.clear()
    server.process.send_signal(signal.SIGHUP)
    assert systemd.hears("RELOADING=1"), server
    assert systemd.hears("READY=1"), server


FAILS_TO_RELOAD = """
import vpntun.daemon
from vpntun.cli import main

def fail(daemon):
    raise RuntimeError("a bug")

vpntun.daemon._Daemon.reload = fail
main()
"""
