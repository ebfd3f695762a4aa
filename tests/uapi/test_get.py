"""Answer to "get=1": what wg(8) sees of a tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, PSK
from tests.link.test_link import Two
from tests.machine import HandLoop
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.link.link import Link
from vpntun.uapi.get import describe

WALL = 1_700_000_000.5
SETTINGS = PeerSettings(BOB.public, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")), PSK, keepalive=25.0)
TUNNEL = Tunnel("tun3", ALICE, (SETTINGS,), 55555, "auto")


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


def told(two: Two, tunnel: Tunnel = TUNNEL, **given: int) -> list[str]:
    def link_of(public: bytes) -> Link:
        return two.alice.links[two.alice.node.peers[public]]

    return list(describe(tunnel, link_of, **{"port": 55555, "mark": 0, **given}, clock=lambda: WALL))


def test_everything_is_told_as_wireguard_tells_it(two: Two) -> None:
    two.wire.shake_hands()
    peer = two.alice.link.peer
    two.loop.pass_time(60.25)
    lines = told(two, mark=51820)
    assert lines == [
        f"private_key={ALICE.private.hex()}",
        "listen_port=55555",
        "fwmark=51820",
        f"public_key={BOB.public.hex()}",
        f"preshared_key={PSK.hex()}",
        "protocol_version=1",
        f"endpoint={two.wire.to_right.where}",
        *(line for line in lines if line.startswith("last_handshake_time_")),
        f"tx_bytes={peer.sent_bytes}",
        f"rx_bytes={peer.received_bytes}",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/24",
        "allowed_ip=fd00::/64",
    ]
    seconds, nanoseconds = (int(line.partition("=")[2]) for line in lines if line.startswith("last_handshake_time_"))
    assert peer.last_handshake is not None
    assert seconds + nanoseconds / 1e9 == pytest.approx(WALL - (two.loop.now - peer.last_handshake), abs=0.001)


def test_only_the_configuration_is_told_while_there_are_neither_keys_nor_links() -> None:
    tunnel = Tunnel("tun3", None, (SETTINGS,), None, None)
    assert list(describe(tunnel, lambda _: None, port=0, mark=0)) == [
        f"public_key={BOB.public.hex()}",
        f"preshared_key={PSK.hex()}",
        "protocol_version=1",
        "persistent_keepalive_interval=25",
        "allowed_ip=10.0.0.0/24",
        "allowed_ip=fd00::/64",
    ]


def test_before_the_first_handshake_no_time_is_told(two: Two) -> None:
    assert not any("handshake" in line for line in told(two))


def test_the_link_of_another_peer_is_not_mixed_up(two: Two) -> None:
    other = PeerSettings(CAROL.public, ())
    tunnel = Tunnel("tun3", ALICE, (other, SETTINGS), None, None)
    known = {BOB.public: two.alice.link}
    lines = list(describe(tunnel, known.get, port=0, mark=0))
    assert lines.index(f"public_key={CAROL.public.hex()}") < lines.index(f"public_key={BOB.public.hex()}")
    assert sum(line.startswith("endpoint=") for line in lines) == 1


@pytest.mark.parametrize(("host", "written"), [("192.0.2.1", "192.0.2.1:9"), ("fe80::1%eth0", "[fe80::1%eth0]:9")])
def test_an_endpoint_that_wg_has_set_is_told_while_there_is_no_link(host: str, written: str) -> None:
    tunnel = Tunnel("tun3", None, (replace(SETTINGS, endpoint=(host, 9)),), None, None)
    assert f"endpoint={written}" in describe(tunnel, lambda _: None, port=0, mark=0)
