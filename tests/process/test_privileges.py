"""Giving up root in a process of its own: what the kernel reports afterwards, and what the process can no longer do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.machine import NOBODY, needs_root
from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.process.privileges import become, check_can_become
from vpntun.runtime.accounts import Account, find_account

NET_ADMIN = 1 << 12

PROGRAM = """
import ctypes, json, os, socket, subprocess, sys, threading, time
import pyroute2
from vpntun.errors import VpntunError
from vpntun.runtime.accounts import Account, find_account
from vpntun.process.privileges import become

libc = ctypes.CDLL(None)
CLONE_NEWNET = 0x40000000
libc.unshare(CLONE_NEWNET)
nobody = find_account("nobody")
report = {}

def attempt(action):
    try:
        return action() or "done"
    except OSError as error:
        return type(error).__name__

def set_link():
    with pyroute2.IPRoute() as netlink:
        try:
            netlink.link("set", index=1, mtu=1400)
        except pyroute2.NetlinkError as error:
            raise PermissionError from error

def mark():
    with socket.socket() as new:
        new.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 1)

def status(text=None):
    lines = (text or open("/proc/self/status").read()).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
"""
REPORT = """
report["status"] = status()
report["child"] = status(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout)
report["dumpable"] = libc.prctl(3, 0, 0, 0, 0)
report["root"] = attempt(lambda: os.setuid(0))
report["effective root"] = attempt(lambda: os.seteuid(0))
report["group"] = attempt(lambda: os.setgid(0))
report["groups"] = attempt(lambda: os.setgroups([0]))
report["link"] = attempt(set_link)
report["mark"] = attempt(mark)
report["low port"] = attempt(lambda: socket.socket().bind(("127.0.0.1", 80)))
report["root's file"] = attempt(lambda: open("/etc/shadow").close())
print(json.dumps(report))
"""


def run(text: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PROGRAM + text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module", params=[True, False], ids=["with CAP_NET_ADMIN", "without"])
def dropped(request: pytest.FixtureRequest) -> tuple[bool, dict[str, Any]]:
    return request.param, run(f"become(nobody, keep_net_admin={request.param})" + REPORT)


@needs_root
def test_all_four_ids_and_the_groups_are_the_users(dropped: tuple[bool, dict[str, Any]]) -> None:
    account = find_account("nobody")
    status = dropped[1]["status"]
    assert status["Uid"].split() == [str(account.uid)] * 4
    assert status["Gid"].split() == [str(account.gid)] * 4
    assert set(map(int, status["Groups"].split())) == set(os.getgrouplist("nobody", account.gid))


@needs_root
def test_the_capabilities_are_exactly_those_kept(dropped: tuple[bool, dict[str, Any]]) -> None:
    kept, report = dropped
    wanted = NET_ADMIN if kept else 0
    held = {name: int(report["status"][f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd", "Inh", "Amb")}
    assert held == {"Prm": wanted, "Eff": wanted, "Bnd": wanted, "Inh": 0, "Amb": 0}


@needs_root
def test_its_child_processes_have_no_capabilities(dropped: tuple[bool, dict[str, Any]]) -> None:
    child = dropped[1]["child"]
    assert [int(child[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb")] == [0] * 4
    assert child["Uid"].split() == [str(NOBODY)] * 4
    assert child["NoNewPrivs"] == "1"


@needs_root
def test_the_process_is_not_dumpable_and_gains_no_privileges(dropped: tuple[bool, dict[str, Any]]) -> None:
    report = dropped[1]
    assert report["dumpable"] == 0
    assert report["status"]["NoNewPrivs"] == "1"


@needs_root
def test_root_cannot_be_regained(dropped: tuple[bool, dict[str, Any]]) -> None:
    report = dropped[1]
    for name in ("root", "effective root", "group", "groups", "root's file"):
        assert report[name] == "PermissionError", name


@needs_root
def test_the_network_can_be_changed_only_with_the_capability(dropped: tuple[bool, dict[str, Any]]) -> None:
    kept, report = dropped
    expected = "done" if kept else "PermissionError"
    assert (report["link"], report["mark"]) == (expected, expected)
    assert report["low port"] == "PermissionError"


@needs_root
def test_a_process_of_that_user_gives_up_its_capabilities() -> None:
    text = """
libc.prctl(8, 1, 0, 0, 0)
os.setgroups([nobody.gid, 7])
os.setgid(nobody.gid)
os.setuid(nobody.uid)
from vpntun.process import privileges
privileges._set_capabilities(1 << 12 | 1 << 10)
before = status()
become(nobody, keep_net_admin=True)
report["before"] = before
"""
    report = run(text + REPORT)
    assert int(report["before"]["CapEff"], 16) == NET_ADMIN | 1 << 10
    assert int(report["status"]["CapEff"], 16) == int(report["status"]["CapPrm"], 16) == NET_ADMIN
    assert report["status"]["Groups"].split() == ["7", str(NOBODY)]
    assert (report["status"]["NoNewPrivs"], report["dumpable"], report["link"]) == ("1", 0, "done")


REFUSED = """
try:
    {act}
except VpntunError as error:
    print(json.dumps({{"refused": str(error), "uid": os.getuid(), "status": error.exit_status}}))
"""


@needs_root
def test_a_second_thread_is_an_error_and_nothing_has_changed() -> None:
    text = "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()"
    report = run(text + REFUSED.format(act="become(nobody, keep_net_admin=False)"))
    assert report == {"refused": report["refused"], "uid": 0, "status": 6}
    assert "thread" in report["refused"]


@needs_root
def test_a_missing_capability_cannot_be_kept() -> None:
    text = """
libc.prctl(24, 12, 0, 0, 0)
from vpntun.process import privileges
privileges._set_capabilities(1 << 6 | 1 << 7)
"""
    report = run(text + REFUSED.format(act="become(nobody, keep_net_admin=True)"))
    assert "CAP_NET_ADMIN" in report["refused"]


@needs_root
def test_a_root_without_the_right_to_change_users_gets_an_error() -> None:
    text = """
from vpntun.process import privileges
privileges._set_capabilities(1 << 12)
"""
    report = run(text + REFUSED.format(act="become(nobody, keep_net_admin=False)"))
    assert "CAP_SETUID" in report["refused"]
    assert report["status"] == 6


@needs_root
def test_an_incomplete_change_of_user_is_an_error() -> None:
    text = "os.setresuid = lambda *ids: None"
    report = run(text + REFUSED.format(act="become(nobody, keep_net_admin=False)"))
    assert report["refused"].endswith("wrong: user, root can be regained")


def test_root_is_refused_as_the_user_to_become() -> None:
    with pytest.raises(ConfigurationError):
        check_can_become(Account("root", 0, 0))
    with pytest.raises(ConfigurationError):
        become(Account("toor", 0, 0), keep_net_admin=False)


def test_an_ordinary_user_cannot_become_another_user() -> None:
    if os.geteuid() == 0:
        check_can_become(Account("alice", 1000, 1000))
        return
    with pytest.raises(PrivilegeError):
        check_can_become(Account("alice", os.geteuid() + 1, 1000))
    check_can_become(Account("me", os.geteuid(), os.getegid()))
