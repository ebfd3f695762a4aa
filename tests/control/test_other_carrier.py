"""Requests for trials of the carrier that a link does not use, on a real link over loopback sockets."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Any, cast

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL
from tests.datapath.test_two_ends import Client, Server, meeting, traffic
from tests.machine import HandLoop
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel
from vpntun.control.other_carrier import OtherCarriers
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.links import Links
from vpntun.link.link import Link
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.serving.http import Answer, follow


class Office:
    """Alice's tunnel: she calls Bob, and Carol calls her."""

    def __init__(self, client: Client, server: Server, loop: HandLoop, stack: ExitStack) -> None:
        self.client, self.server = client, server
        client.know(CAROL.public, [])
        peers = (
            PeerSettings(BOB.public, (ip_network("10.7.0.0/16"),), name="bob"),
            PeerSettings(CAROL.public, (ip_network("10.8.0.0/16"),), name="carol"),
        )
        start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        self.state = TunnelState(
            Tunnel("tun11", ALICE, peers, None, None, routing=Routing("auto", 0)), start, loop, Counter()
        )
        self.state.links = cast(Links, self)
        self.carriers = OtherCarriers(self.state)

    def of(self, public: bytes) -> Link:
        """The link of a peer, as Links.of."""
        return next(link for link in self.client.links.values() if link.peer.public == public)

    def request(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        answer = follow(self.carriers.routes(), method, target)
        assert isinstance(answer, Answer)
        return int(answer.status), json.loads(answer.body)


@pytest.fixture
def office(loop: HandLoop) -> Iterator[Office]:
    with ExitStack() as stack:
        client, server = stack.enter_context(meeting(loop, socket.AF_INET, "auto", knows_vpntun=True))
        traffic(client, server)
        yield Office(client, server, loop, stack)


def test_a_trial_is_begun_and_its_end_is_reported(office: Office, loop: HandLoop) -> None:
    assert office.request("GET", "/v1/tried?peer=bob") == (
        200,
        {"public_key": format_key(BOB.public), "name": "bob", "state": "none"},
    )
    status, begun = office.request("POST", "/v1/try?peer=bob")
    assert (status, begun["state"], begun["carrier"], begun["used"]) == (202, "trying", "tcp", "udp")
    assert (begun["round_trip"], begun["age"]) == (None, 0)
    loop.until(lambda: office.request("GET", "/v1/tried?peer=bob")[1]["state"] == "answered")
    status, ended = office.request("GET", "/v1/tried?peer=bob")
    assert (status, ended["endpoint"]) == (200, f"127.0.0.1:{office.server.port}")
    assert ended["round_trip"] > 0
    loop.pass_time(3)
    assert office.request("POST", "/v1/try?peer=bob")[1] == ended | {"age": 3}, "it is too early for another"


@pytest.mark.parametrize("request_of", ["POST /v1/try", "GET /v1/tried"])
@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("?peer=nobody", 404, "no peer has this name or key"),
        ("", 409, "several peers match"),
        ("?peer=carol", 409, "the peer calls this end, and chooses the carrier"),
    ],
)
def test_what_cannot_be_tried_is_refused_with_the_reason(
    office: Office, request_of: str, query: str, status: int, reason: str
) -> None:
    method, path = request_of.split()
    given, answer = office.request(method, path + query)
    assert given == status
    assert reason in answer["error"]


def test_a_link_that_is_being_looked_for_is_not_tried(office: Office) -> None:
    office.client.calling.peer.forget()
    status, answer = office.request("POST", "/v1/try?peer=bob")
    assert (status, "wait until it is connected" in answer["error"]) == (409, True)
