"""Init script for machines without systemd: starts, stops and reports the tunnels it is configured for.

The server has the guide's file, with two tunnels.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boot.installed import Host
from tests.documents import blocks
from tests.netns.lab import CHECKOUT, Lab, until

SCRIPT = "/etc/init.d/vpntun"
RUNS, DEAD, STOPPED, UNKNOWN = 0, 1, 3, 4  # the Linux Standard Base's
FAILED, NOT_RUNNING = 1, 7

pytestmark = pytest.mark.netns


@pytest.fixture
def server(lab: Lab, b: Host) -> Host:
    """Machine with two configured tunnels, one with a configuration file and one without."""
    shutil.copy(lab.key, b.configuration / "vpntun.key")
    [default] = blocks("default")
    b.write("/etc/default/vpntun", default)
    b.write("/etc/vpntun/office.conf", OFFICE.format(port=4500), 0o600)
    return b


OFFICE = """
[Interface]
SharedKey = /etc/vpntun/vpntun.key
Role = server
ListenPort = {port}
Address = 192.168.7.2/24
"""


def status(host: Host, *tunnels: str) -> int:
    return host.run(SCRIPT, "status", *tunnels, check=False).returncode


def pid(host: Host, device: str) -> int:
    return int(host.run("cat", f"/run/vpntun/{device}.pid").stdout)


def stop(host: Host) -> None:
    host.run(SCRIPT, "stop")


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("script", ["vpntun.init", "vpntun.ifupdown"])
def test_the_scripts_are_valid_shell(script: str, shell: str) -> None:
    subprocess.run([shell, "-n", CHECKOUT / "scripts" / "boot" / script], check=True)


def test_start_status_and_stop(lab: Lab, a: Host, server: Host) -> None:
    assert status(server) == STOPPED
    server.run(SCRIPT, "start")
    assert status(server) == RUNS
    a.write("/etc/default/vpntun", f'TUNNELS="client@tun11:{lab.b.four}"\nOPTIONS="-v"\n')
    shutil.copy(lab.key, a.configuration / "vpntun.key")
    a.run(SCRIPT, "start")
    lab.ping(lab.a, lab.b.address_of("tun3"))
    a.run(SCRIPT, "stop")
    server.run(SCRIPT, "stop")
    assert (status(a), status(server)) == (STOPPED, STOPPED)
    assert not any(machine.has_device(device) for machine, device in ((lab.a, "tun11"), (lab.b, "tun3")))


def test_a_second_start_and_a_second_stop_change_nothing(server: Host) -> None:
    server.run(SCRIPT, "start")
    before = pid(server, "tun3")
    server.run(SCRIPT, "start")
    assert pid(server, "tun3") == before
    stop(server)
    stop(server)


def test_of_two_starts_at_once_both_succeed_and_one_tunnel_runs(server: Host) -> None:
    starts = [server.popen(SCRIPT, "start", "server@tun3") for _ in range(2)]
    assert [start.wait(30) for start in starts] == [0, 0]
    assert status(server, "server@tun3") == RUNS
    stop(server)


def test_an_action_on_one_tunnel_leaves_the_other_alone(server: Host) -> None:
    server.run(SCRIPT, "start", "office")
    assert (status(server, "office"), status(server, "server@tun3")) == (RUNS, STOPPED)
    before = pid(server, "office")
    server.run(SCRIPT, "restart", "office")
    assert (status(server, "office"), status(server, "server@tun3")) == (RUNS, STOPPED)
    assert pid(server, "office") != before
    stop(server)


def test_a_killed_tunnel_is_reported_as_dead_and_can_be_started_again(server: Host) -> None:
    server.run(SCRIPT, "start", "server@tun3")
    server.run("kill", "-KILL", str(pid(server, "tun3")))
    assert until(lambda: status(server, "server@tun3") == DEAD, 5)
    server.run(SCRIPT, "start", "server@tun3")
    assert status(server, "server@tun3") == RUNS
    stop(server)


def test_a_file_that_was_left_behind_leads_to_no_stranger(lab: Lab, server: Host) -> None:
    stranger = server.popen("tail", "-f", "/etc/vpntun/vpntun.key")
    server.run("sh", "-c", f"echo {stranger.process.pid} >/run/vpntun/tun3.pid")
    assert status(server, "server@tun3") == DEAD
    assert server.run(SCRIPT, "reload", "server@tun3", check=False).returncode == NOT_RUNNING
    stop(server)
    server.run(SCRIPT, "start", "server@tun3")
    assert lab.b.has_device("tun3")
    stop(server)
    assert stranger.running


def test_a_file_with_the_number_of_another_tunnel_does_not_lead_to_it(server: Host) -> None:
    server.run(SCRIPT, "start", "server@tun3")
    server.run("cp", "/run/vpntun/tun3.pid", "/run/vpntun/office.pid")
    server.run(SCRIPT, "stop", "office")
    assert (status(server, "office"), status(server, "server@tun3")) == (DEAD, RUNS)
    stop(server)


def test_a_tunnel_outside_this_container_is_reported_and_left_alone(server: Host) -> None:
    server.run(SCRIPT, "start", "server@tun3")
    for action, result in (("status", UNKNOWN), ("stop", FAILED)):
        done = server.run("unshare", "-pf", "--mount-proc", SCRIPT, action, "server@tun3", check=False)
        assert done.returncode == result, done
        assert "is held by a process of another PID namespace" in done.stderr
    assert status(server, "server@tun3") == RUNS
    stop(server)


@pytest.mark.long
def test_a_tunnel_that_hangs_is_killed(server: Host) -> None:
    server.run(SCRIPT, "start", "server@tun3")
    server.run("kill", "-STOP", str(pid(server, "tun3")))
    assert server.run(SCRIPT, "stop", "server@tun3", check=False).returncode == FAILED
    assert status(server, "server@tun3") == DEAD


def test_a_reload_reads_files_again_and_keeps_the_processes(server: Host) -> None:
    server.run(SCRIPT, "start")
    before = pid(server, "office"), pid(server, "tun3")
    server.write("/etc/vpntun/office.conf", OFFICE.format(port=4500) + "[Peer]\nName = laptop\n", 0o600)
    server.run(SCRIPT, "reload")
    assert until(lambda: "laptop" in server.run("vpntun", "show", "office").stdout, 5)
    assert (pid(server, "office"), pid(server, "tun3")) == before
    assert (status(server, "office"), status(server, "server@tun3")) == (RUNS, RUNS)
    stop(server)


def test_a_tunnel_that_cannot_start_is_a_failure(server: Host) -> None:
    server.write("/etc/vpntun/office.conf", OFFICE.format(port=0x10000), 0o600)
    failed = server.run(SCRIPT, "start", check=False)
    assert failed.returncode == 1
    assert "office.conf:5" in failed.stderr
    assert (status(server, "office"), status(server, "server@tun3")) == (STOPPED, RUNS)
    stop(server)


@pytest.mark.parametrize("tunnel", ["client@tun11", "server@", "other@tun3"])
def test_an_invalid_tunnel_name_has_status_6(b: Host, tunnel: str) -> None:
    assert b.run(SCRIPT, "start", tunnel, check=False).returncode == 6


def test_an_unknown_action_is_a_usage_error(b: Host) -> None:
    done = b.run(SCRIPT, "stand", check=False)
    assert done.returncode == 2
    assert re.match("usage: .*start|stop", done.stderr)


def test_without_tunnels_there_is_nothing_to_do(b: Host) -> None:
    assert b.run(SCRIPT, "start").stderr == ""


def test_it_has_an_lsb_header(installed: Path) -> None:
    script = (installed / SCRIPT[1:]).read_text()
    header = re.search(r"### BEGIN INIT INFO\n(.*?)### END INIT INFO", script, re.DOTALL)
    assert header
    for keyword in ("Provides", "Required-Start", "Required-Stop", "Default-Start", "Default-Stop"):
        assert re.search(rf"^# {keyword}: +\S", header[1], re.MULTILINE), keyword
