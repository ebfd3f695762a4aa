"""Requests about the other end: asked through the control socket, and answered to peers without a word about others."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from typing import Any, cast

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire
from tests.machine import HandLoop
from tests.netns.lab import until
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines, Routing, Tunnel
from vpntun.control.other_end import MOST_KEPT, OtherEnds
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.datapath.links import Links
from vpntun.link.link import Link
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.serving.http import Answer, follow
from vpntun.wire.inside.request import DOCTOR

PEERS = (
    PeerSettings(BOB.public, (ip_network("10.7.0.0/16"),), name="bob"),
    PeerSettings(CAROL.public, (ip_network("10.8.0.0/16"),), name="carol"),
)


class FakeLinks:
    """The links of an end, as control/state.py uses them."""

    def __init__(self, end: End) -> None:
        self._end = end

    def of(self, public: bytes) -> Link:
        return next(link for link in self._end.links.values() if link.peer.public == public)


class Hub:
    """Alice, a tunnel with the peers Bob and Carol, of whom Bob has a session."""

    def __init__(self, loop: HandLoop, stack: ExitStack) -> None:
        self.alice, self.bob = End(ALICE, loop), End(BOB, loop)
        for key in (BOB, CAROL):
            self.alice.know(key.public, [])
        self.bob.know(ALICE.public)
        for end in (self.alice, self.bob):
            stack.callback(end.close)
        self.wire = Wire(self.alice, self.bob)
        self.wire.shake_hands()
        start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        tunnel = Tunnel("tun3", ALICE, PEERS, None, None, routing=Routing("auto", 0))
        self.state = TunnelState(tunnel, start, loop, Counter())
        self.state.links = cast(Links, FakeLinks(self.alice))
        self.ends = OtherEnds(self.state)
        self.alice.engine.answers.add(DOCTOR, self.ends.answer)

    def request(self, method: str, target: str) -> tuple[int, dict[str, Any]]:
        answer = follow(self.ends.routes(), method, target)
        assert isinstance(answer, Answer)
        return int(answer.status), json.loads(answer.body)


@pytest.fixture
def hub(loop: HandLoop) -> Iterator[Hub]:
    with ExitStack() as stack:
        yield Hub(loop, stack)


def test_the_answer_of_a_peer_is_fetched_by_its_number(hub: Hub) -> None:
    asked: list[dict[str, Any]] = []

    def answer(link: Link, content: dict[str, Any]) -> dict[str, Any]:
        asked.append(content)
        return {"version": "0.1"}

    hub.bob.engine.answers.add(DOCTOR, answer)
    status, given = hub.request("POST", "/v1/examine?peer=bob")
    assert (status, given["public_key"]) == (202, format_key(BOB.public))
    target = f"/v1/examined?id={given['id']}"
    assert hub.request("GET", target)[1]["state"] == "asked"
    hub.wire.run()
    status, found = hub.request("GET", target)
    assert (status, found["state"], found["answer"]) == (200, "answered", {"version": "0.1"})
    assert asked[0]["networks"] == ["10.7.0.0/16"], "it is told what is routed to it"
    assert asked[0]["time"] == found["asked"] <= found["answered"]


def test_silence_is_reported_after_ten_seconds(hub: Hub, loop: HandLoop) -> None:
    _, given = hub.request("POST", "/v1/examine?peer=bob")
    hub.wire.to_right.take()
    loop.pass_time(10.0)
    FakeLinks(hub.alice).of(BOB.public).handle_deadline()
    assert hub.request("GET", f"/v1/examined?id={given['id']}")[1] | {"asked": 0, "answered": 0} == {
        "id": given["id"],
        "state": "silent",
        "asked": 0,
        "answered": 0,
        "answer": None,
    }


@pytest.mark.parametrize(
    ("method", "target", "status", "words"),
    [
        ("POST", "/v1/examine?peer=dave", 404, "no peer has this name"),
        ("POST", "/v1/examine", 409, "several peers match"),
        ("POST", "/v1/examine?peer=carol", 409, "there is no link to the peer now"),
        ("GET", "/v1/examined?id=7", 404, "nothing was asked under this id"),
        ("GET", "/v1/examined?id=x", 404, "nothing was asked under this id"),
        ("GET", "/v1/examined", 404, "nothing was asked under this id"),
    ],
)
def test_a_request_that_cannot_be_done_says_why(hub: Hub, method: str, target: str, status: int, words: str) -> None:
    refused, content = hub.request(method, target)
    assert refused == status
    assert words in content["error"]


def test_few_answers_are_kept(hub: Hub, loop: HandLoop) -> None:
    hub.bob.engine.answers.add(DOCTOR, lambda link, content: {})
    for _ in range(MOST_KEPT + 1):
        loop.pass_time(1.0)
        assert hub.request("POST", "/v1/examine?peer=bob")[0] == 202
        hub.wire.run()
    assert hub.request("GET", "/v1/examined?id=1")[0] == 404
    assert hub.request("GET", f"/v1/examined?id={MOST_KEPT + 1}")[0] == 200


def test_a_question_that_could_not_be_asked_is_not_kept(hub: Hub) -> None:
    assert hub.request("POST", "/v1/examine?peer=carol")[0] == 409
    assert hub.request("GET", "/v1/examined?id=1")[0] == 404


def test_a_peer_learns_nothing_about_another(hub: Hub, loop: HandLoop) -> None:
    answers: list[dict[str, Any] | None] = []
    hub.bob.link.ask(DOCTOR, {}, answers.append)

    def has_come() -> bool:
        hub.wire.run()
        loop.pass_time(0.5)
        hub.bob.link.handle_deadline()
        return bool(answers)

    until(has_come, 10)
    (answer,) = answers
    assert answer is not None
    assert {each["check"] for each in answer["findings"]} >= {"AEAD", "clock", "forwarding"}
    text = json.dumps(answer)
    for secret in ("carol", format_key(CAROL.public)[:8], "10.8.", format_key(ALICE.private), CAROL.public.hex()):
        assert secret not in text
