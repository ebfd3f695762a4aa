"""Interoperation with wireguard-go in each role, with and without a preshared key."""

from __future__ import annotations

import sys
import time

import pytest

from tests.netns.datagrams import datagrams
from tests.netns.lab import Lab, until
from tests.netns.test_ecn import ECT, HANDSHAKES, mark, needs_nft, ping, watching
from tests.netns.test_offloads import OFFLOADS
from tests.netns.wireguard import (
    DEVICE,
    OURS,
    OURS6,
    THEIRS,
    THEIRS6,
    WG_PORT,
    Keys,
    as_client,
    endpoint_in_a,
    latest_handshake,
    start_vpntun,
    start_wireguard,
)
from vpntun.wire.ip import CE, ECT_0, ECT_1, NOT_ECT, tos_of

BOTH = pytest.mark.parametrize(("version", "has_psk"), [(4, False), (6, True)], ids=["v4", "v6 and psk"])


@BOTH
def test_vpntun_calls_and_wireguard_answers(lab: Lab, keys: Keys, version: int, has_psk: bool) -> None:
    psk = keys.psk if has_psk else None
    start_wireguard(lab, keys, psk=psk)
    start_vpntun(lab, keys, *as_client(lab, version), psk=psk)
    # A client shakes hands at its start, without waiting for a packet to send.
    assert until(lambda: latest_handshake(lab) > 0, 10), lab.logs()
    for address in (THEIRS, THEIRS6):
        lab.ping(lab.a, address, within=10)
    for address in (OURS, OURS6):
        lab.ping(lab.b, address, within=10)
    lab.transfer(40_000_000, THEIRS)
    lab.transfer(40_000_000, OURS6, source=lab.b)


@BOTH
def test_wireguard_calls_and_vpntun_answers(lab: Lab, keys: Keys, version: int, has_psk: bool) -> None:
    psk = keys.psk if has_psk else None
    start_vpntun(lab, keys, "-s", psk=psk)
    start_wireguard(lab, keys, *endpoint_in_a(lab, version), psk=psk)
    for address in (OURS, OURS6):
        lab.ping(lab.b, address, within=10)
    for address in (THEIRS, THEIRS6):
        lab.ping(lab.a, address, within=10)
    lab.transfer(20_000_000, OURS, source=lab.b)


@pytest.mark.parametrize("caller", ["vpntun", "wireguard"])
def test_a_wrong_or_missing_preshared_key_prevents_the_session(lab: Lab, keys: Keys, caller: str) -> None:
    if caller == "vpntun":
        wireguard = start_wireguard(lab, keys, psk=keys.psk)
        daemon = start_vpntun(lab, keys, *as_client(lab), psk=keys.wrong_psk)
    else:
        daemon = start_vpntun(lab, keys, "-s", psk=keys.psk)
        wireguard = start_wireguard(lab, keys, *endpoint_in_a(lab))
    lab.no_ping(lab.b, OURS, seconds=2)
    assert latest_handshake(lab) == 0
    wireguard.set("peer", keys.ours.public, "preshared-key", keys.wrong_psk if caller == "vpntun" else keys.psk)
    lab.ping(lab.b, OURS, within=15)
    assert daemon.running


@needs_nft
def test_a_wireguard_that_ignores_ecn_gets_each_packet_as_it_is(lab: Lab, keys: Keys) -> None:
    start_wireguard(lab, keys)
    with watching(lab.b, "veth0") as outside:
        start_vpntun(lab, keys, *as_client(lab))
        lab.ping(lab.a, THEIRS)
        assert any(tos_of(packet) == HANDSHAKES for packet in outside.look())
        mark(lab.b, ECT, WG_PORT)
        with watching(lab.b, DEVICE) as within:
            for tos in (NOT_ECT, ECT_0, ECT_1, CE):
                ping(lab, THEIRS, tos)
            assert within.pings() == outside.pings() == [NOT_ECT, ECT_0, ECT_1, CE]


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
    lab.ping(lab.a, THEIRS, within=10)
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
        start_wireguard(lab, keys, *endpoint_in_a(lab))
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
