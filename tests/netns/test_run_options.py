"""Options for running any tunnel: those that are refused, hooks, reloads, signals and the end."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.netns.daemons import configured
from tests.netns.lab import NOBODY, PORT, Lab, far, start_client, start_pair, start_server, until
from vpntun.config.tunnel import DEFAULT_MTU

HOOK = """#!/bin/sh
echo "$VPNTUN_EVENT" "$VPNTUN_INTERFACE" "$VPNTUN_PEER" "$VPNTUN_ENDPOINT" "$VPNTUN_MTU" "$(id -u)" >>{book}
"""


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


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_users_signals_change_nothing(lab: Lab, number: signal.Signals) -> None:
    server, client = start_pair(lab)
    for daemon in (server, client):
        daemon.process.send_signal(number)
    lab.ping(lab.a, far(lab))
    assert (server.stop(), client.stop()) == (0, 0)
