"""Tests of the lab itself: a failure of the lab would look like a fault of the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from namespaces import NETNS
from tests.netns import lab as labs
from tests.netns.lab import CHECKOUT, Lab
from tests.netns.leftovers import MARK, sweep
from tests.netns.users import User


def test_the_machines_reach_each_other_over_v4_and_v6(lab: Lab) -> None:
    for address in (lab.b.four, lab.b.six):
        assert lab.ping(lab.a, address, within=5) < 5
    for address in (lab.a.four, lab.a.six):
        lab.ping(lab.b, address, within=5)


def test_a_ping_that_is_not_answered_fails_and_shows_the_logs(lab: Lab) -> None:
    daemon = lab.b.popen("echo", "what the daemon said")
    daemon.wait()
    with pytest.raises(AssertionError, match="what the daemon said"):
        lab.ping(lab.a, "10.0.0.77", within=1)
    lab.no_ping(lab.a, "10.0.0.77")


def test_a_closed_lab_leaves_neither_namespace_nor_process(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    daemon = lab.a.popen("sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done")
    daemon.wait_for("up")
    apart = lab.a.popen("unshare", "--net", "sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done")
    apart.wait_for("up")
    lab.close()
    assert not daemon.running
    assert not apart.running
    assert not any((NETNS / machine.name).exists() for machine in lab.machines)


def test_namespaces_of_a_killed_run_are_swept_and_those_in_use_are_kept(lab: Lab) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = f"vt{gone.pid}-0a"
    subprocess.run(["ip", "netns", "add", left], check=True)
    process = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: left})
    in_use = lab.b.popen("unshare", "--net", "sleep", "600")
    home, home_in_use = Path(tempfile.mkdtemp(prefix=f"{left}-")), lab.home()
    sweep()
    assert process.wait(10) == -signal.SIGKILL
    assert in_use.running
    assert (home.exists(), home_in_use.exists()) == (False, True)
    assert not (NETNS / left).exists()
    assert (NETNS / lab.a.name).exists()


def test_workers_that_sweep_at_the_same_time_do_not_fail_each_other() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = [f"vt{gone.pid}-{number}a" for number in range(20)]
    for namespace in left:
        subprocess.run(["ip", "netns", "add", namespace], check=True)
    sweeping = [sys.executable, "-c", "from tests.netns.leftovers import sweep; sweep()"]
    env = {**os.environ, "PYTHONPATH": "scripts"}
    workers = [subprocess.Popen(sweeping, cwd=CHECKOUT, env=env) for _ in range(4)]
    assert [worker.wait(30) for worker in workers] == [0, 0, 0, 0]
    assert not any((NETNS / namespace).exists() for namespace in left)


def test_blocked_udp_is_dropped_until_it_is_unblocked(lab: Lab) -> None:
    listener = "import socket; s = socket.create_server(('', 55555)); s = socket.socket(type=2); s.bind(('', 55555))"
    echo = lab.b.popen("python3", "-c", f"{listener}; print('up', flush=True)\nwhile 1: s.sendto(*s.recvfrom(9))")
    echo.wait_for("up")
    call = "import socket; s = socket.socket(type=2); s.settimeout(0.5); s.sendto(b'x', ('10.0.0.2', 55555)); s.recv(9)"

    def heard() -> bool:
        return lab.a.run("python3", "-c", call, check=False).returncode == 0

    assert heard()
    lab.block("udp")
    assert not heard()
    lab.unblock("udp")
    assert heard()


def test_bytes_are_transferred_and_checked(lab: Lab) -> None:
    done = lab.transfer(5_000_000, lab.b.six)
    assert done.nbytes == 5_000_000
    assert done.mbits > 0
    lab.transfer(1_000_000, lab.a.four, source=lab.b)


def test_an_ordinary_user_has_a_tun_node_and_no_capability(lab: Lab) -> None:
    home = lab.home()
    done = lab.a.run("sh", "-c", "id -u; grep CapEff /proc/self/status; stat -c %a /dev/net/tun", user="nobody")
    assert done.stdout.split() == ["65534", "CapEff:", "0000000000000000", "666"]
    script = f"import nacl, vpntun; open('{home}/mine', 'w').close(); print('ok')"
    assert lab.a.run(sys.executable, "-c", script, user="nobody").stdout == "ok\n"
    assert (home / "mine").stat().st_uid == 65534


def test_a_folder_can_be_bound_over_another_for_one_command(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "only").touch()
    assert lab.a.run("ls", "/etc", binds={"/etc": tmp_path / "etc"}).stdout.split() == ["only"]
    assert os.path.exists("/etc/passwd")


def test_a_machines_state_outlives_a_command_but_not_the_lab(lab: Lab) -> None:
    for folder in labs.STATE:
        lab.a.run("touch", folder / "a-was-here")
        assert lab.a.run("ls", folder).stdout == "a-was-here\n"
        assert lab.b.run("ls", folder).stdout == ""
        assert not (folder / "a-was-here").exists()


def test_an_ordinary_user_has_files_of_its_own_and_can_make_namespaces(lab: Lab) -> None:
    user = User(lab.a, 4711)
    key = user.own(lab.key)
    assert user.run("stat", "-c", "%u %a", key).stdout == "4711 600\n"
    assert user.run("sh", "-c", "echo $HOME; echo $XDG_RUNTIME_DIR").stdout.split() == [
        str(user.home),
        f"{user.home}/run",
    ]
    assert user.run("cat", lab.key, check=False).returncode != 0
    assert user.run("cat", user.write("note", "mine")).stdout == "mine"
    inside = user.run(
        "unshare",
        "--user",
        "--map-current-user",
        "--net",
        "--mount",
        "--keep-caps",
        "ip",
        "tuntap",
        "add",
        "dev",
        "t",
        "mode",
        "tun",
    )
    assert inside.stderr == ""
    assert user.ask("genkey")[0] == 0
