"""ifupdown: stanzas of /etc/network/interfaces, the guide's among them, bring tunnels up and take them down."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.boot.installed import Host, need
from tests.documents import blocks
from tests.netns.lab import Lab, until

pytestmark = pytest.mark.netns

INTERFACES = """
iface tun12 inet manual
    vpntun-client 10.0.0.99
    vpntun-wait 1

iface office inet manual
    vpntun-file yes
iface office inet6 manual
    vpntun-file yes

iface tun3 inet manual
    vpntun-server yes

iface veth0 inet manual
"""
OFFICE = """
[Interface]
SharedKey = /etc/vpntun/vpntun.key
Role = server
ListenPort = 4500
"""


@pytest.fixture
def host(lab: Lab, a: Host) -> Host:
    need("ifup", "ifdown")
    shutil.copy(lab.key, a.configuration / "vpntun.key")
    a.write("/etc/hosts", f"{lab.b.four} remote.example.org\n")
    a.write("/etc/network/interfaces", "\n".join((*blocks("interfaces"), INTERFACES)))
    a.write("/etc/vpntun/office.conf", OFFICE, 0o600)
    return a


def ifup(host: Host, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return host.run("ifup", f"--state-dir={host.own}", *arguments, check=check)


def ifdown(host: Host, *arguments: str) -> subprocess.CompletedProcess[str]:
    return host.run("ifdown", f"--state-dir={host.own}", *arguments)


def test_a_client_comes_and_goes(lab: Lab, host: Host, b: Host) -> None:
    b.popen("vpntun", "-s", "-i", "tun3", "-k", lab.key, "--address", "192.168.7.2/24").wait_for("waiting")
    ifup(host, "tun11")
    assert "192.168.7.1/24" in lab.a.addresses("tun11")
    lab.ping(lab.a, "192.168.7.2")
    ifdown(host, "tun11")
    assert not lab.a.has_device("tun11")


def test_ifup_fails_and_leaves_nothing_if_the_link_is_not_up_in_time(lab: Lab, host: Host) -> None:
    failed = ifup(host, "tun12", check=False)
    assert failed.returncode != 0
    assert until(lambda: not lab.a.has_device("tun12"), 5)


def test_a_pid_file_that_was_left_behind_leads_to_no_stranger(lab: Lab, host: Host) -> None:
    stranger = host.popen("tail", "-f", "/etc/vpntun/vpntun.key")
    leave = "sh", "-c", f"echo {stranger.process.pid} >/run/vpntun/tun3.pid"
    host.run(*leave)
    ifup(host, "tun3")
    assert lab.a.has_device("tun3")
    ifdown(host, "tun3")
    assert not lab.a.has_device("tun3")
    host.run(*leave)
    ifup(host, "tun3")
    host.run("vpntun", "down", "tun3")
    host.run(*leave)
    ifdown(host, "tun3")
    assert stranger.running


def test_a_file_with_two_stanzas_and_a_server(lab: Lab, host: Host) -> None:
    ifup(host, "office", "tun3")
    assert lab.a.has_device("office")
    assert lab.a.has_device("tun3")
    ifdown(host, "office", "tun3")
    assert not lab.a.has_device("office")
    assert not lab.a.has_device("tun3")


def test_stanzas_without_vpntun_options_are_ignored(lab: Lab, host: Host) -> None:
    ifup(host, "veth0")
    ifdown(host, "veth0")
    assert lab.a.has_device("veth0")
    assert not (lab.folder / f"{lab.a.name}-run-vpntun" / "veth0.pid").exists()
