"""GET /v1/capture: what its query selects, what it refuses, and how many captures there may be."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from types import SimpleNamespace
from typing import cast

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL
from tests.datapath.routing.test_relay import Hub, between, one_hop_on
from tests.machine import HandLoop
from vpntun.capture.reading import CapturedPacket, CaptureReader
from vpntun.capture.recording import Recording
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.control.capture import MOST_CAPTURES, Captures
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.mirror import Mirror
from vpntun.serving.http import Answer, AnyAnswer, StreamAnswer, follow

PEERS = (PeerSettings(ALICE.public, (), name="alice"), PeerSettings(CAROL.public, (), name="carol at home, 100%"))
HELLO = between("100.64.0.1", "10.1.2.3", b"hello")
HERE = between("100.64.0.1", "10.9.0.1", b"to the hub itself")


class Tunnel3:
    """A hub with Alice and Carol as its peers, and what a client captures there."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop, self.hub = loop, Hub(loop)
        self.hub.to_alice.name, self.hub.to_carol.name = "alice", "carol"
        links = {ALICE.public: self.hub.to_alice, CAROL.public: self.hub.to_carol}
        self.mirror: Mirror | None = self.hub.bob.engine.mirror
        self.state = SimpleNamespace(
            tunnel=Tunnel("tun3", BOB, PEERS, None, None),
            mirror=self.mirror,
            links=SimpleNamespace(of=links.__getitem__),
        )
        self.captures = Captures(cast(TunnelState, self.state), loop)

    def ask(self, query: str = "") -> AnyAnswer:
        return follow(self.captures.routes(), "GET", f"/v1/capture{query}")

    def capture(self, query: str = "") -> Recording:
        answer = self.ask(query)
        assert isinstance(answer, StreamAnswer), answer
        assert answer.content_type == "application/x-pcapng"
        assert isinstance(answer.stream, Recording)
        return answer.stream

    @property
    def is_tapped(self) -> bool:
        return self.hub.bob.outbound.entry is self.mirror


@pytest.fixture
def tunnel(loop: HandLoop) -> Iterator[Tunnel3]:
    made = Tunnel3(loop)
    yield made
    made.hub.close()


def packets(recording: Recording) -> list[CapturedPacket]:
    reader, found = CaptureReader(), []
    while piece := recording.take():
        found += list(reader.take(piece))
    return found


def test_a_capture_has_relayed_packets_from_one_peer_and_to_the_other(tunnel: Tunnel3) -> None:
    recording = tunnel.capture()
    tunnel.hub.send(HELLO)
    shown = [(each.peer, each.outbound, each.data) for each in packets(recording)]
    assert shown == [("alice", False, HELLO), ("carol", True, one_hop_on(HELLO))]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("?peer=alice", ["alice", "alice"]),
        ("?peer=carol%20at%20home%2C%20100%25", ["carol"]),
        (f"?peer={format_key(CAROL.public)[:10]}", ["carol"]),
        ("?peer=alice&peer=carol%20at%20home%2C%20100%25", ["alice", "carol", "alice"]),
        ("?net=10.9.0.1/32", ["alice"]),
        ("?net=10.1.0.0/16&net=fd00::/8", ["alice", "carol"]),
        ("?net=10.9.0.1,10.1.0.0/16&peer=alice", ["alice", "alice"]),
        ("?net=::/0", []),
        ("?packets=2", ["alice", "carol"]),
    ],
)
def test_a_query_selects_peers_networks_and_numbers(tunnel: Tunnel3, query: str, shown: list[str]) -> None:
    recording = tunnel.capture(query)
    tunnel.hub.send(HELLO, HERE)
    assert [each.peer for each in packets(recording)] == shown


def test_a_capture_takes_only_the_beginning_of_each_packet_on_request(tunnel: Tunnel3) -> None:
    recording = tunnel.capture("?snaplen=20")
    tunnel.hub.send(HERE)
    assert [(each.data, each.length) for each in packets(recording)] == [(HERE[:20], len(HERE))]


def test_a_capture_ends_in_time_and_leaves_no_tap(loop: HandLoop, tunnel: Tunnel3) -> None:
    recording = tunnel.capture("?seconds=2.5")
    assert tunnel.is_tapped
    loop.pass_time(2.4)
    assert not recording.ended
    loop.pass_time(0.2)
    assert recording.ended
    assert not tunnel.is_tapped
    recording.end()


def test_a_capture_that_has_ended_is_not_kept_until_its_time_is_over(loop: HandLoop, tunnel: Tunnel3) -> None:
    recording = tunnel.capture("?seconds=86400")
    kept = weakref.ref(recording)
    recording.end()
    del recording
    gc.collect()
    assert kept() is None
    loop.pass_time(86401)


def test_a_capture_ends_before_it_has_too_many_bytes(tunnel: Tunnel3) -> None:
    recording = tunnel.capture("?bytes=5000")
    for _ in range(100):
        tunnel.hub.send(HELLO)
    assert recording.ended
    size = 0
    while piece := recording.take():
        size += len(piece)
    assert 4500 < size <= 5000


def test_there_are_two_captures_at_most_at_a_time(tunnel: Tunnel3) -> None:
    running = [tunnel.capture() for _ in range(MOST_CAPTURES)]
    refused = tunnel.ask()
    assert isinstance(refused, Answer)
    assert refused.status == HTTPStatus.CONFLICT
    tunnel.hub.send(HERE)
    running[0].end()
    tunnel.hub.send(HERE)
    tunnel.capture().end()
    running[1].end()
    assert [len(packets(each)) for each in running] == [1, 2]
    assert not tunnel.is_tapped


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("?peer=dave", 404, "no peer has this name or key"),
        ("?peer=", 404, "no peer has this name or key"),
        ("?net=10.0.0.0/33", 400, "is not a network"),
        ("?net=everywhere", 400, "is not a network"),
        ("?packets=0", 400, "packets must be a number, at least 1"),
        ("?packets=many", 400, "packets must be a number"),
        ("?packets=nan", 400, "packets must be a number"),
        ("?bytes=100", 400, "bytes must be a number, at least 4096"),
        ("?seconds=-1", 400, "seconds must be a number, at least 0"),
        ("?seconds=inf", 400, "and at most"),
        ("?snaplen=65536", 400, "at least 1 and at most 65535"),
        ("?packets=1&packets=2", 404, "there is no"),
        ("?colour=red", 404, "there is no"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_and_starts_nothing(
    tunnel: Tunnel3, query: str, status: int, reason: str
) -> None:
    refused = tunnel.ask(query)
    assert isinstance(refused, Answer)
    assert refused.status == status
    assert reason in json.loads(refused.body)["error"]
    assert not tunnel.is_tapped


def test_a_name_of_several_peers_is_refused(tunnel: Tunnel3) -> None:
    tunnel.state.tunnel = replace(tunnel.state.tunnel, peers=(PEERS[0], replace(PEERS[1], name="alice")))
    refused = tunnel.ask("?peer=alice")
    assert isinstance(refused, Answer)
    assert refused.status == HTTPStatus.CONFLICT


def test_a_tunnel_that_is_being_set_up_says_so(tunnel: Tunnel3) -> None:
    tunnel.state.mirror = None
    refused = tunnel.ask()
    assert isinstance(refused, Answer)
    assert (refused.status, refused.content) == (409, {"error": "tun3 is still being set up: capture later"})


def test_a_tunnel_without_links_yet_may_be_captured(tunnel: Tunnel3) -> None:
    tunnel.state.links = None
    recording = tunnel.capture()
    tunnel.hub.send(HERE)
    assert [each.peer for each in packets(recording)] == ["alice"]
