"""Status: every field that docs/control.rst names, no secrets, and a state that claims no more than is known."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.cli.sample_status import FORWARD, SOCKS5
from tests.datapath.ends import ALICE, BOB, PSK, End, TwoEnds, Wire, ipv4
from tests.link.test_link import HERE, THERE, Two
from tests.machine import HandLoop
from vpntun import __version__
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.control.status import state_of, status_of
from vpntun.core.mac_table import LOCAL, MacTable, OwnSide
from vpntun.core.wireguard.timers import REKEY_ATTEMPT_TIME
from vpntun.crypto.keys import format_key
from vpntun.datapath.switching.learnt import macs_of_ports
from vpntun.link.link import Link
from vpntun.types import DeviceKind

DOCS = (Path(__file__).parents[2] / "docs" / "control.rst").read_text()
WALL = 1_700_000_000.5


@pytest.fixture(params=["vpntun", "WireGuard"])
def two(loop: HandLoop, request: pytest.FixtureRequest) -> Iterator[Two]:
    """Alice, and Bob as another vpntun or as a plain WireGuard."""
    made = Two(loop, bob_is_plain=request.param == "WireGuard")
    yield made
    made.close()


@pytest.fixture
def met(two: Two) -> Two:
    """Alice and Bob after a handshake."""
    two.wire.shake_hands()
    return two


SETTINGS = PeerSettings(
    BOB.public, (ip_network("10.0.0.0/24"), ip_network("fd00::/64")), PSK, keepalive=25.0, name="office"
)
TUNNEL = Tunnel("tun3", ALICE, (SETTINGS,), 55555, "auto", relay=True)


def reported(
    two: Two, wall: float = WALL, *, starting: str | None = None, tunnel: Tunnel = TUNNEL, **of_a_tap: Any
) -> dict[str, Any]:
    """Return Alice's status as a client receives it. `starting`: what the start waits for, before there are links."""
    status = status_of(
        tunnel,
        lambda public: two.alice.links[two.alice.node.peers[public]] if starting is None else None,
        starting=starting,
        is_resolved=lambda settings: starting is None or settings.host is None,
        mtu=1420,
        addresses=[ip_interface("10.0.0.1/24")],
        drops={"unknown peer": 2},
        uptime=60.5,
        clock=lambda: wall,
        **of_a_tap,
    )
    taken: dict[str, Any] = json.loads(json.dumps(status))
    return taken


def peer_of(two: Two, wall: float = WALL) -> dict[str, Any]:
    [peer] = reported(two, wall)["peers"]
    assert isinstance(peer, dict)
    return peer


def documented(table: str) -> list[str]:
    """List the names in the first column of a table of docs/control.rst."""
    [rows] = re.findall(rf"^\.\. {table}\n\n=.*\n.*\n=.*\n((?:.+\n)+?)=", DOCS, re.MULTILINE)
    return [row.split("  ")[0].strip("`") for row in rows.splitlines() if not row.startswith(" ")]


def test_the_documented_fields_are_those_reported_in_that_order(two: Two) -> None:
    assert documented("fields of the tunnel") == list(reported(two))
    assert documented("fields of a peer") == list(peer_of(two))
    assert documented("fields of a forward") == list(FORWARD)
    assert documented("fields of a SOCKS5 proxy") == list(SOCKS5)


def test_the_documented_reasons_exist() -> None:
    source = "\n".join(path.read_text() for path in (Path(__file__).parents[2] / "vpntun").rglob("*.py"))
    reasons = documented("reasons")
    assert len(reasons) > 10
    for reason in reasons:
        assert f'"{reason}"' in source, reason


def test_the_tunnel_is_reported_as_configured(two: Two) -> None:
    status = reported(two)
    del status["peers"]
    assert status == {
        "interface": "tun3",
        "version": __version__,
        "pid": os.getpid(),
        "started": int(WALL) - 60,
        "uptime": 60,
        "clock": 60.5,
        "starting": None,
        "public_key": format_key(ALICE.public),
        "listen_port": 55555,
        "waits": "auto",
        "mtu": 1420,
        "device": "tun",
        "mac": None,
        "bridge": None,
        "in_bridge": None,
        "mac_count": None,
        "macs": None,
        "addresses": ["10.0.0.1/24"],
        "relay": True,
        "dscp": False,
        "names": None,
        "drops": {"unknown peer": 2},
        "forwards": [],
        "socks5": None,
    }


@pytest.mark.parametrize(("own", "its"), [("tap", "tap"), ("tun", "tap"), ("tap", "tun")])
def test_what_the_device_of_a_vpntun_carries_is_reported(loop: HandLoop, own: DeviceKind, its: DeviceKind) -> None:
    ends = TwoEnds(End(ALICE, loop, kind=own), End(BOB, loop, kind=its))
    two = Two.__new__(Two)
    two.alice = ends.alice
    assert peer_of(two)["device"] is None
    ends.wire.shake_hands()
    assert peer_of(two)["device"] == its
    ends.close()


def test_without_a_private_key_no_public_key_is_reported_and_no_peer_is_connecting(two: Two) -> None:
    called = replace(SETTINGS, host="192.0.2.1", port=51820)
    status = reported(two, starting="PostUp", tunnel=replace(TUNNEL, identity=None, peers=(called,)))
    assert status["public_key"] is None
    assert [peer["state"] for peer in status["peers"]] == ["waiting"]


def test_no_secret_is_reported(met: Two) -> None:
    text = json.dumps(reported(met))
    for secret in (ALICE.private, BOB.private, PSK):
        assert format_key(secret) not in text
        assert secret.hex() not in text


def test_only_the_configuration_is_known_before_the_first_handshake(two: Two) -> None:
    two.alice.link.peer.endpoint = None
    known = {name: value for name, value in peer_of(two).items() if value is not None}
    assert known == {
        "public_key": format_key(BOB.public),
        "name": "office",
        "preshared_key": True,
        "state": "waiting",
        "carrier_up": False,
        "carrier_up_for": 0,
        "carrier_reason": "the peer has not called",
        "handshake_fresh": False,
        "handshake_fresh_for": 0,
        "data_verified": False,
        "data_verified_for": 0,
        "allowed_ips": ["10.0.0.0/24", "fd00::/64"],
        "allowed_macs": [],
        "received_bytes": 0,
        "sent_bytes": 0,
        "persistent_keepalive": 25.0,
        "vpntun": False,
        "queue": {"packets": 0, "bytes": 0},
        "drops": {},
    }


def test_only_the_configuration_is_known_while_the_start_waits_for_a_name(two: Two) -> None:
    called = replace(SETTINGS, host="nx.invalid", port=51820)
    status = reported(two, starting="the name nx.invalid", tunnel=replace(TUNNEL, peers=(called,)))
    assert status["starting"] == "the name nx.invalid"
    [peer] = status["peers"]
    assert list(peer) == documented("fields of a peer")
    assert (peer["state"], peer["unresolved"], peer["endpoint"]) == ("connecting", "nx.invalid", None)
    assert (peer["allowed_ips"], peer["sent_bytes"], peer["round_trip"]) == (["10.0.0.0/24", "fd00::/64"], 0, None)
    [caller] = reported(two, starting="PreUp")["peers"]
    assert (caller["state"], caller["unresolved"]) == ("waiting", None)


def test_the_results_of_a_handshake_are_reported(two: Two) -> None:
    link = two.alice.link
    link.act(link.peer.initiate(two.wire.to_right, two.loop.now))
    [initiation] = two.wire.to_right.take()
    two.loop.pass_time(0.25)
    two.bob.take(initiation, two.wire.to_left)
    two.wire.run()
    two.loop.pass_time(7.0)
    peer = peer_of(two)
    assert peer["endpoint"] == "right:55555"
    assert peer["carrier"] == "udp"
    assert peer["latest_handshake"] == peer["latest_received"] == int(WALL) - 7
    assert peer["latest_handshake_age"] == peer["latest_received_age"] == 7
    assert peer["round_trip"] == 0.25
    assert peer["received_bytes"] >= 92
    assert peer["sent_bytes"] >= 148


@pytest.mark.parametrize("set_by", [-10 * 365 * 86400, -86400, 7200])
def test_a_clock_that_was_set_changes_no_age(met: Two, set_by: int) -> None:
    met.loop.pass_time(7.0)
    before, after = reported(met), reported(met, WALL + set_by)
    assert after["uptime"] == before["uptime"] == 60
    assert after["started"] == before["started"] + set_by
    peer = peer_of(met, WALL + set_by)
    assert peer["latest_handshake_age"] == peer["latest_received_age"] == 7
    assert peer["latest_handshake"] == peer["latest_received"] == int(WALL) + set_by - 7


def test_what_two_vpntuns_measure_is_reported_for_vpntuns_only(met: Two) -> None:
    is_vpntun = not met.bob._plain
    met.alice.link.records.moved(met.wire.to_right, met.loop.now, ipv6=False)
    met.alice.send(ipv4(HERE, THERE, b"x" * 1000))
    met.wire.run()
    met.loop.deadline = lambda: met.alice.link.deadline
    met.loop.on_deadline = met.alice.link.handle_deadline
    met.loop.pass_time(2.0)
    met.wire.run()
    peer = peer_of(met)
    assert peer["vpntun"] == is_vpntun
    assert (peer["span"] is not None) == is_vpntun
    assert peer["protected"] is (True if is_vpntun else None)  # a path's first datagrams are
    assert (peer["record_bytes"] is not None) == is_vpntun
    assert peer["path_mtu"] == (1500 if is_vpntun else None)
    assert peer["loss"] is None
    met.wire.to_right.ipv6 = True
    assert peer_of(met)["path_mtu"] == (1520 if is_vpntun else None)


def test_over_tcp_there_is_no_span_and_no_path_mtu(loop: HandLoop) -> None:
    alice, bob = End(ALICE, loop), End(BOB, loop)
    alice.know(BOB.public)
    bob.know(ALICE.public)
    Wire(alice, bob, carrier="tcp").shake_hands()
    alice.send(ipv4(HERE, THERE))
    two = Two.__new__(Two)
    two.alice = alice
    peer = peer_of(two)
    assert (peer["carrier"], peer["span"], peer["path_mtu"]) == ("tcp", None, None)
    assert peer["record_bytes"] > 4000
    alice.close()
    bob.close()


def test_queued_and_dropped_packets_are_reported(met: Two) -> None:
    met.wire.to_right.is_ready = False
    met.alice.send(ipv4(HERE, THERE, b"x" * 80), ipv4(HERE, THERE, b"x" * 80))
    met.alice.link.drops["source not allowed"] += 3
    met.alice.link.queue.late = 2
    peer = peer_of(met)
    assert peer["queue"] == {"packets": 2, "bytes": 200}
    assert {reason: peer["drops"][reason] for reason in ("source not allowed", "queue late")} == {
        "source not allowed": 3,
        "queue late": 2,
    }


ON_TAP = replace(SETTINGS, allowed=(), allowed_macs=(bytes(5) + b"a",))
TAP = replace(TUNNEL, relay=False, device="tap", bridge="br0", peers=(ON_TAP,))


def test_a_tap_has_its_mac_its_bridge_and_the_addresses_that_were_learnt_at_each_side(two: Two) -> None:
    link, table = two.alice.link, MacTable[Link]()
    table.pin(b"\x02own!!")
    claims: list[tuple[Link | Literal[OwnSide.LOCAL], float]] = [(link, 1.0), (LOCAL, 2.0), (link, 9.5)]
    for number, (port, at) in enumerate(claims):
        table.claim(bytes((2, 0, 0, 0, 0, number)), port, at)
    status = reported(two, tunnel=TAP, mac=b"\x02own!!", macs=macs_of_ports(table, 11.0))
    assert (status["device"], status["mac"], status["bridge"]) == ("tap", "02:6f:77:6e:21:21", "br0")
    own = [{"address": "02:00:00:00:00:01", "seconds": 9}, {"address": "02:6f:77:6e:21:21", "seconds": 0}]
    assert (status["mac_count"], sorted(status["macs"], key=lambda each: str(each["address"]))) == (2, own)
    [peer] = status["peers"]
    assert (peer["allowed_ips"], peer["allowed_macs"]) == ([], ["00:00:00:00:00:61"])
    assert peer["mac_count"] == 2
    assert peer["macs"] == [
        {"address": "02:00:00:00:00:02", "seconds": 1},
        {"address": "02:00:00:00:00:00", "seconds": 10},
    ]


def test_a_peer_at_which_nothing_was_learnt_has_none_and_on_a_tun_it_is_not_known(two: Two) -> None:
    [peer] = reported(two, tunnel=TAP, macs={})["peers"]
    assert (peer["mac_count"], peer["macs"]) == (0, [])
    [peer] = reported(two)["peers"]
    assert (peer["mac_count"], peer["macs"]) == (None, None)


# The state


def test_a_link_without_a_session_is_connecting_until_it_gives_up_and_then_waiting(two: Two) -> None:
    link = two.alice.link
    assert state_of(link) == "waiting"
    two.alice.send(ipv4(HERE, THERE))
    assert state_of(link) == "connecting"
    two.loop.clock.now += REKEY_ATTEMPT_TIME + 1
    two.loop.poll()
    link.handle_deadline()
    assert state_of(link) == "waiting"


def test_a_link_without_an_endpoint_is_waiting(two: Two) -> None:
    two.alice.link.peer.endpoint = None
    two.alice.send(ipv4(HERE, THERE))
    assert state_of(two.alice.link) == "waiting"


def test_an_idle_session_is_connected_as_long_as_it_may_be_used(met: Two) -> None:
    met.loop.pass_time(179.0)
    assert state_of(met.alice.link) == "connected"
    met.loop.pass_time(2.0)
    assert state_of(met.alice.link) == "waiting"


def test_a_peer_that_does_not_answer_is_not_connected_despite_a_session(met: Two) -> None:
    link = met.alice.link
    met.loop.pass_time(1.0)
    met.alice.send(ipv4(HERE, THERE))
    met.wire.to_right.take()
    met.loop.pass_time(14.9)
    assert state_of(link) == "connected"
    met.loop.pass_time(1.0)
    link.handle_deadline()
    assert link.peer.sending_session(met.loop.now) is not None
    assert state_of(link) == "connecting"
    met.wire.run()
    assert state_of(link) == "connected"


def test_a_vpntun_that_is_heard_but_reports_nothing_is_one_way(met: Two) -> None:
    link = met.alice.link
    session = link.peer.keys.current
    assert session is not None
    is_vpntun = link.records.takes_records(session, met.loop.now)
    for _ in range(17):
        met.alice.send(ipv4(HERE, THERE))
        met.wire.to_right.take()
        met.bob.send(ipv4(THERE, HERE))
        met.wire.run()
        met.loop.pass_time(1.0)
        link.handle_deadline()
    assert state_of(link) == ("one-way" if is_vpntun else "connected")
    link.peer.endpoint = None
    assert state_of(link) == "waiting"


def test_a_session_without_a_path_is_not_connected(met: Two) -> None:
    met.alice.link.peer.endpoint = None
    assert state_of(met.alice.link) == "waiting"


def test_a_link_whose_packets_wait_for_the_first_hello_is_connecting(loop: HandLoop) -> None:
    alice, bob = End(ALICE, loop, knows_vpntun=True), End(BOB, loop, plain=True)
    alice.know(BOB.public)
    bob.know(ALICE.public)
    Wire(alice, bob).shake_hands()
    assert state_of(alice.link) == "connecting"
    assert state_of(bob.link) == "connected"
    alice.close()
    bob.close()
