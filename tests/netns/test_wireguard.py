"""Interoperation with wireguard-go in each role, with and without a preshared key."""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.netns.lab import Daemon, Lab, until
from tests.netns.test_offloads import OFFLOADS, datagrams

WG_PORT = 51820
DEVICE = "wg0"
OURS, THEIRS = "192.168.7.1", "192.168.7.2"
OURS6, THEIRS6 = "fd66::1", "fd66::2"


@dataclass
class Identity:
    file: Path
    public: str


@dataclass
class Keys:
    ours: Identity
    theirs: Identity
    psk: Path


@pytest.fixture
def keys(lab: Lab) -> Keys:
    def secret(name: str, text: str) -> Path:
        path = lab.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def identity(name: str) -> Identity:
        file = secret(name, lab.a.run("wg", "genkey").stdout)
        return Identity(file, lab.a.run("wg", "pubkey", input=file.read_text()).stdout.strip())

    return Keys(identity("ours"), identity("theirs"), secret("psk", lab.a.run("wg", "genpsk").stdout))


@pytest.fixture(autouse=True)
def _installed() -> None:
    for tool in ("wireguard-go", "wg"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def start_wireguard(
    lab: Lab, keys: Keys, *peer: str, allowed: str = f"{OURS}/32,{OURS6}/128", psk: bool = False
) -> Daemon:
    """Start wireguard-go in b with vpntun as its only peer."""
    daemon = lab.b.popen("wireguard-go", "-f", DEVICE)
    assert until(lambda: lab.b.run("wg", "show", DEVICE, check=False).returncode == 0, 5), str(daemon)
    lab.b.run("wg", "set", DEVICE, "private-key", keys.theirs.file, "listen-port", str(WG_PORT))
    secret = ("preshared-key", keys.psk) if psk else ()
    lab.b.run("wg", "set", DEVICE, "peer", keys.ours.public, *secret, "allowed-ips", allowed, *peer)
    for address in (f"{THEIRS}/24", f"{THEIRS6}/64"):
        lab.b.run("ip", "address", "add", address, "dev", DEVICE)
    lab.b.run("ip", "link", "set", DEVICE, "up")
    return daemon


def start_vpntun(lab: Lab, keys: Keys, *role: str, allowed: tuple[str, ...] = (), psk: bool = False) -> Daemon:
    """Start vpntun in a with wireguard-go as its only peer."""
    identity = ["--private-key", str(keys.ours.file), "--peer", keys.theirs.public]
    identity += ["--psk", str(keys.psk)] if psk else []
    for network in allowed:
        identity += ["--allowed", network]
    addresses = ["--address", f"{OURS}/24", "--address", f"{OURS6}/64"]
    daemon = lab.a.vpntun(*role, "-i", "tun11", *identity, *addresses)
    assert until(lambda: f"{OURS6}/64" in lab.a.addresses("tun11") or not daemon.running, 10), str(daemon)
    assert daemon.running, str(daemon)
    return daemon


def as_client(lab: Lab) -> tuple[str, ...]:
    return ("-c", lab.b.four, "-p", str(WG_PORT))


def latest_handshake(lab: Lab) -> int:
    return int(lab.b.run("wg", "show", DEVICE, "latest-handshakes").stdout.split()[-1])


@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
def test_vpntun_calls_and_wireguard_answers(lab: Lab, keys: Keys, psk: bool) -> None:
    start_wireguard(lab, keys, psk=psk)
    start_vpntun(lab, keys, *as_client(lab), psk=psk)
    # A client shakes hands at its start, without waiting for a packet to send.
    assert until(lambda: latest_handshake(lab) > 0, 5), lab.logs()
    for address in (THEIRS, THEIRS6):
        lab.ping(lab.a, address, within=3)
    for address in (OURS, OURS6):
        lab.ping(lab.b, address, within=3)
    lab.transfer(40_000_000, THEIRS)
    lab.transfer(40_000_000, OURS6, source=lab.b)


@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
def test_wireguard_calls_and_vpntun_answers(lab: Lab, keys: Keys, psk: bool) -> None:
    start_vpntun(lab, keys, "-s", psk=psk)
    start_wireguard(lab, keys, "endpoint", f"{lab.a.four}:55555", psk=psk)
    for address in (OURS, OURS6):
        lab.ping(lab.b, address, within=5)
    for address in (THEIRS, THEIRS6):
        lab.ping(lab.a, address, within=3)
    lab.transfer(20_000_000, OURS, source=lab.b)


def test_over_ipv6(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, "-c", lab.b.six, "-p", str(WG_PORT))
    lab.ping(lab.a, THEIRS, within=5)


@pytest.mark.parametrize("mtu", [1500, 1400])
@pytest.mark.parametrize("offloads", [True, False], ids=["offloads", "no offloads"])
def test_superpackets_are_split_and_segments_joined_with_and_without_offloads(
    lab: Lab, keys: Keys, offloads: bool, mtu: int
) -> None:
    for machine in (lab.a, lab.b):
        machine.run("ip", "link", "set", "veth0", "mtu", str(mtu))
        if not offloads:
            machine.run(sys.executable, OFFLOADS, "veth0")
    start_wireguard(lab, keys)
    client = start_vpntun(lab, keys, *as_client(lab), "-v")
    lab.ping(lab.a, THEIRS, within=5)
    lab.transfer(20_000_000, THEIRS)
    lab.transfer(20_000_000, OURS6, source=lab.b)
    datagrams(lab, THEIRS6)
    datagrams(lab, OURS, source=lab.b)
    assert client.stop() == 0
    assert "too big" not in client.log, str(client)
    assert "undeliverable" not in client.log, str(client)


def test_packets_of_all_sizes(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    for size in (0, 1, 1392, 1393, 5000):
        lab.ping(lab.a, THEIRS, size=size)
        lab.ping(lab.b, OURS6, size=size)


def test_a_missing_preshared_key_prevents_the_session(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys, psk=True)
    daemon = start_vpntun(lab, keys, *as_client(lab))
    lab.no_ping(lab.a, THEIRS, seconds=3)
    assert daemon.running


def test_an_inner_source_that_is_not_allowed_is_dropped(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab), allowed=(f"{THEIRS}/32",))
    lab.ping(lab.b, OURS)
    lab.b.run("ip", "address", "add", "192.168.7.66/24", "dev", DEVICE)
    done = lab.b.run("ping", "-c2", "-i0.2", "-W1", "-I", "192.168.7.66", OURS, check=False)
    assert done.returncode == 1, done.stdout
    done = lab.b.run("ping", "-c2", "-i0.2", "-W1", OURS6, check=False)
    assert done.returncode == 1, done.stdout
    lab.ping(lab.b, OURS)


def test_vpntun_reconnects_after_wireguard_restarts(lab: Lab, keys: Keys) -> None:
    wireguard = start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    wireguard.stop()
    assert until(lambda: not lab.b.has_device(DEVICE), 5)
    start_wireguard(lab, keys)
    lab.ping(lab.a, THEIRS, within=30)


def test_wireguard_accepts_vpntun_again_after_vpntun_restarts(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    first = start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    first.stop()
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS, within=10)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("asks", ["vpntun", "wireguard"])
def test_keys_are_renewed_with_either_end_as_the_initiator(lab: Lab, keys: Keys, asks: str) -> None:
    if asks == "vpntun":
        start_wireguard(lab, keys)
        start_vpntun(lab, keys, *as_client(lab))
    else:
        start_vpntun(lab, keys, "-s")
        start_wireguard(lab, keys, "endpoint", f"{lab.a.four}:55555")
    lab.ping(lab.b, OURS)
    first = latest_handshake(lab)
    done = lab.b.run("ping", "-q", "-i0.2", "-c1100", OURS, timeout=300)
    assert " 0% packet loss" in done.stdout, done.stdout
    assert latest_handshake(lab) > first


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_idle_link_sends_keepalives_and_no_needless_handshake(lab: Lab, keys: Keys) -> None:
    """A persistent keepalive is sent every 25 s, and a handshake at most every 120 s."""
    start_wireguard(lab, keys)
    start_vpntun(lab, keys, *as_client(lab))
    lab.ping(lab.a, THEIRS)
    first, handshakes = time.time(), {latest_handshake(lab)}
    while time.time() < first + 110:
        time.sleep(1)
        handshakes.add(latest_handshake(lab))
    assert len(handshakes) == 1
    received = int(lab.b.run("wg", "show", DEVICE, "transfer").stdout.split()[-2])
    assert received > 148 + 4 * 32, "keepalives are missing"
