"""Forwards of tunnels of the machine, used by real programs: curl, ssh, and crowds of clients."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.netns.daemons import configured
from tests.netns.lab import STARTED, Daemon, Lab, Machine, far, start_pair, until
from tests.netns.servers import SSHD, needs, start_sshd, start_web
from tests.netns.talkers import CROWD
from tests.netns.users import User

SHORT = 300
TALKERS = (sys.executable, "-m", "tests.netns.talkers")
SERVER, CLIENT = "10.9.0.1", "10.9.0.2"
MOST_MEMORY = 16 << 20  # half of what a slow reader leaves waiting
COULD_NOT_CONNECT = 7


def serve(machine: Machine, host: str = "127.0.0.1", port: int = 7000) -> Daemon:
    server = machine.popen(*TALKERS, "serve", host, str(port))
    server.wait_for("ready")
    return server


def expose(machine: Machine, interface: str, *words: str) -> None:
    status, output = machine.ask("expose", interface, *words)
    assert status == 0, output


def forwards_of(machine: Machine, interface: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = machine.status(interface)["forwards"]
    return found


def peak_memory(daemon: Daemon) -> int:
    """The most memory that the process has had so far, in bytes."""
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


@needs("curl")
def test_forwards_of_files_carry_curl_and_ssh_both_ways_and_follow_a_reload(lab: Lab) -> None:
    start_web(lab.b, 8000, "127.0.0.1", page="\0" * 3_000_000)
    of_b = configured(
        lab, lab.b, "server", f"Address = {SERVER}/24", "Forward = :80 127.0.0.1:8000 from peer", "User = nobody"
    )
    server = lab.b.vpntun("up", of_b)
    server.wait_for(STARTED)
    status, said = lab.b.ask("expose", "office", ":81", "127.0.0.1:8000", "--from", "peer")
    assert status != 0
    assert "no right to listen on :81: choose a port above 1023" in said, "nobody may not have what root opened before"
    expose(lab.b, "office", ":8100", "127.0.0.1:8000", "--from", "peer")
    folder = lab.home()
    lines = (
        f"Address = {CLIENT}/24",
        f"Forward = tcp :8080 {SERVER}:80",
        f"Forward = unix:{folder}/web {SERVER}:80",
        "Forward = 127.0.0.1:8082 127.0.0.1:8000",
    )
    of_a = configured(lab, lab.a, "client", *lines, peer=f"Endpoint = {lab.b.four}:55555")
    client = lab.a.vpntun("up", of_a)
    client.wait_for(STARTED)
    for where in (
        ("http://127.0.0.1:8080/page",),
        ("http://[::1]:8080/page",),
        ("--unix-socket", f"{folder}/web", "http://desk/page"),
        (f"http://{SERVER}:8100/page",),
    ):
        done = lab.a.run("curl", "-fsS", "-o", "/dev/null", "-w", "%{size_download}", *where)
        assert done.stdout == "3000000"
    beside = lab.a.run("curl", "-sS", "--interface", "veth0", f"http://{SERVER}:80/page", check=False)
    assert beside.returncode == COULD_NOT_CONNECT, "a forward from the peer takes nothing that comes by another device"
    itself = lab.b.run("curl", "-sS", "-m1", f"http://{SERVER}:80/page", check=False)
    assert itself.returncode != 0, "a forward from the peer takes nothing from this machine itself"
    lost = lab.a.run("curl", "-sS", "-m1", "http://127.0.0.1:8082/page", check=False)
    assert lost.returncode != 0, "a target is never reached but through the tunnel"

    of_a.write_text(of_a.read_text().replace("tcp :8080", "tcp :8081"))
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("read the configuration again", 30)
    assert lab.a.listens(8081)
    assert not lab.a.listens(8080)
    of_a.write_text(of_a.read_text().replace("tcp :8081", "tcp 192.0.2.77:8083"))
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("or give :PORT for all; nothing has changed")
    assert lab.a.run("curl", "-fsSI", "http://127.0.0.1:8081/page").returncode == 0
    assert client.stop() == 0
    assert not (folder / "web").exists()
    client = lab.a.vpntun("up", of_a)
    assert client.wait() == 3
    assert "192.0.2.77:8083 cannot be listened on" in client.log
    assert not lab.a.has_device("office")


@needs(SSHD, "ssh")
def test_ssh_logs_in_through_a_forward_that_is_added_and_removed_while_it_runs(lab: Lab) -> None:
    folder = lab.home(0)
    login = start_sshd(lab.b, folder, 2200)
    _, client = start_pair(lab)
    expose(lab.b, "tun3", ":22", "127.0.0.1:2200", "--from", "peer")
    expose(lab.a, "tun11", "127.0.0.1:2222", f"{far(lab)}:22")
    ssh = (*login, "-p", "2222", "root@127.0.0.1")
    assert lab.a.run(*ssh, "cat; exit 7", input="through", check=False).stdout == "through"
    (forward,) = forwards_of(lab.a, "tun11")
    assert (forward["connections_total"], forward["of_file"]) == (1, False)
    assert forward["sent_bytes"] > 100
    assert lab.a.ask("unexpose", "tun11", "127.0.0.1:2222") == (0, "")
    assert "Connection refused" in lab.a.run(*ssh, "true", check=False).stderr

    assert client.stop() == 0
    user = User(lab.a)
    run = (sys.executable, "-m", "vpntun", "run", "-c", lab.b.four, "-k", user.own(lab.key), "--")
    inside = (*login[:-1], user.own(folder / "user"), f"root@{far(lab)}")
    done = user.run(*run, *inside, "echo through a run; exit 7", check=False)
    assert (done.stdout, done.returncode) == ("through a run\n", 7), done


def test_crowds_datagrams_ends_and_resets_pass_a_forward(lab: Lab) -> None:
    _, client = start_pair(lab)
    there = far(lab)
    server = serve(lab.b, there)
    before = peak_memory(client)
    expose(lab.a, "tun11", ":7001", f"{there}:7000")
    expose(lab.a, "tun11", ":7001", f"{there}:7000", "--udp")
    crowd = lab.a.run(*TALKERS, "crowd", "127.0.0.1", "7001", str(SHORT), timeout=100)
    assert crowd.stdout == "crowd served\n"
    stream, datagrams = forwards_of(lab.a, "tun11")
    assert stream["connections_total"] == CROWD + SHORT + 1
    assert (stream["connections_refused"], stream["connections_failed"]) == (0, 0)
    assert until(lambda: forwards_of(lab.a, "tun11")[0]["connections"] == 0, 20)
    assert peak_memory(client) < before + MOST_MEMORY

    assert lab.a.run(*TALKERS, "udp", "127.0.0.1", "7001", timeout=100).stdout == "datagrams answered\n"
    assert lab.a.run(*TALKERS, "ask", "127.0.0.1", "7001", "reset").stdout == "client saw a reset\n"
    lab.a.run(*TALKERS, "ask", "127.0.0.1", "7001", "wait")
    server.wait_for("server saw a reset", 20)
    server.kill()
    assert lab.a.run(*TALKERS, "ask", "127.0.0.1", "7001", "echo").stdout == "client saw a reset\n"
    stream, datagrams = forwards_of(lab.a, "tun11")
    assert (stream["connections_failed"], stream["last_failure"]) == (1, "Connection refused")
    assert datagrams["connections"] == datagrams["connections_total"] == 50


@pytest.mark.long
def test_a_peer_that_is_gone_fails_new_connections_in_time(lab: Lab) -> None:
    server, client = start_pair(lab)
    there = far(lab)
    expose(lab.a, "tun11", ":7001", f"{there}:7000")
    server.kill()
    assert lab.a.run(*TALKERS, "ask", "127.0.0.1", "7001", "echo", timeout=90).stdout == "client saw a reset\n"
    client.wait_for("cannot be reached for tcp :7001")
    assert json.dumps(forwards_of(lab.a, "tun11")[0]["last_failure"]) == '"Connection timed out"'
