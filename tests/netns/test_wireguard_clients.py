"""vpntun calls wireguard-go: with a wrong clock, by a name whose address changes, and with its device elsewhere."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.netns.lab import Daemon, Lab, firewall, until
from tests.netns.wireguard import (
    OURS,
    THEIRS,
    WG_PORT,
    Keys,
    WireGuard,
    start_from_file,
    start_vpntun,
    start_wireguard,
)

TEN_YEARS = 315_360_000

# Runs vpntun with a wall clock that is wrong by some seconds.
WRONG_CLOCK = """
import runpy, sys, time
right, wrong_by = time.time, float(sys.argv.pop(1))
time.time = lambda: right() + wrong_by
runpy.run_module("vpntun", run_name="__main__", alter_sys=True)
"""


def start_at(lab: Lab, keys: Keys, seconds: float) -> Daemon:
    """Start vpntun with a clock that is wrong by this many seconds, and ping wireguard-go."""
    caller = "-c", lab.b.four, "-p", str(WG_PORT), "--private-key", keys.ours.file, "--peer", keys.theirs.public
    client = lab.a.popen(
        sys.executable, "-c", WRONG_CLOCK, str(seconds), *caller, "-i", "tun11", "--address", f"{OURS}/24"
    )
    lab.ping(lab.a, THEIRS, within=15)
    return client


def test_a_client_gets_in_after_a_boot_with_a_wrong_clock(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    for seconds in (0, -time.time(), TEN_YEARS, 0):  # power cuts, and 1970 follows the first
        start_at(lab, keys, seconds).kill()


@pytest.fixture
def hosts(tmp_path: Path) -> Path:
    """The client's /etc/hosts."""
    return tmp_path / "hosts"


def call_by_name(lab: Lab, keys: Keys, hosts: Path, address: str) -> WireGuard:
    """Start both ends; vpntun calls wireguard-go by a name that has this address."""
    hosts.write_text(f"{address} server.example.org\n")
    wireguard = start_wireguard(lab, keys)
    caller = "-c", "server.example.org", "-p", str(WG_PORT)
    start_vpntun(lab, keys, *caller, binds={"/etc/hosts": hosts})
    return wireguard


@pytest.mark.long
def test_the_name_is_looked_up_again_while_no_handshake_is_answered(lab: Lab, keys: Keys, hosts: Path) -> None:
    lab.b.run("ip", "addr", "add", "10.0.0.77/24", "dev", "veth0")
    lab.b.run(firewall()[0], "-w", "-A", "INPUT", "-d", "10.0.0.77", "-j", "DROP")
    call_by_name(lab, keys, hosts, "10.0.0.77")
    lab.no_ping(lab.a, THEIRS)
    hosts.write_text(f"{lab.b.four} server.example.org\n")
    lab.ping(lab.a, THEIRS, within=15)


@pytest.mark.long
def test_the_name_is_looked_up_again_when_a_session_is_no_longer_answered(lab: Lab, keys: Keys, hosts: Path) -> None:
    call_by_name(lab, keys, hosts, lab.b.four)
    lab.ping(lab.a, THEIRS)
    lab.b.run("sh", "-ec", f"ip addr del {lab.b.four}/24 dev veth0; ip addr add 10.0.0.7/24 dev veth0")
    hosts.write_text("10.0.0.7 server.example.org\n")
    assert lab.ping(lab.a, THEIRS, within=30) > 10


def test_post_up_moves_the_device_to_another_namespace_and_the_sockets_stay(lab: Lab, keys: Keys) -> None:
    other = lab.add("c", "10.0.1.3", "fd02::3")
    start_wireguard(lab, keys)
    moved = f"PostUp = ip link set %i netns {other.name}", f"PostUp = ip -n {other.name} addr add {OURS}/24 dev %i"
    up = f"PostUp = ip -n {other.name} link set %i up"
    own = "\n".join(("[Interface]", f"PrivateKey = {keys.ours.file.read_text()}", "Table = off", *moved, up))
    peer = f"[Peer]\nPublicKey = {keys.theirs.public}\nEndpoint = {lab.b.four}:{WG_PORT}\nAllowedIPs = 0.0.0.0/0\n"
    client = start_from_file(lab.a, "tun11", f"{own}\n{peer}", "running line 3 of PostUp")
    lab.ping(other, THEIRS)
    assert until(lambda: lab.a.status("tun11")["starting"] is None, 10)
    client.process.send_signal(signal.SIGHUP)
    client.wait_for("read the configuration again")
    lab.ping(other, THEIRS, within=10)
    assert lab.a.ask("down", "tun11") == (0, "")
    assert client.wait() == 0
    assert not other.has_device("tun11")
