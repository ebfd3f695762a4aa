"""Verification on request: who is asked, what is answered at once, and by which statuses a request fails."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from tests.datapath.ends import BOB, CAROL
from tests.link.test_link import Two
from tests.link.test_link_states import begin
from tests.machine import HandLoop
from vpntun.config.peer import PeerSettings
from vpntun.control.verify import verify, verify_routes
from vpntun.crypto.keys import format_key
from vpntun.errors import AmbiguousPeer, NoSuchPeer
from vpntun.link.link import Link
from vpntun.serving.http import Answer, follow

PEERS = tuple(
    PeerSettings(keys.public, (ip_network("10.0.0.0/24"),), name=name)
    for keys, name in ((BOB, "bob"), (CAROL, "carol"))
)
BOBS, CAROLS = format_key(BOB.public), format_key(CAROL.public)


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    """Alice and Bob with a session. Of Carol, Alice has only the settings."""
    made = Two(loop)
    begin(made)
    loop.pass_time(1.0)
    yield made
    made.close()


def link_of(two: Two, public: bytes) -> Link | None:
    return two.alice.link if public == BOB.public else None


def test_the_answer_lists_the_peers_and_those_that_have_not_answered_yet(two: Two) -> None:
    assert verify(PEERS, lambda public: link_of(two, public), None) == {"peers": [BOBS, CAROLS], "awaited": [BOBS]}
    two.wire.run()
    assert verify(PEERS, lambda public: link_of(two, public), None) == {"peers": [BOBS, CAROLS], "awaited": []}


def test_one_peer_may_be_asked_alone(two: Two) -> None:
    assert verify(PEERS, lambda public: link_of(two, public), "carol") == {"peers": [CAROLS], "awaited": []}
    assert not two.alice.link.records.verification.is_awaited
    with pytest.raises(NoSuchPeer):
        verify(PEERS, lambda public: link_of(two, public), "dave")


def test_while_there_is_no_session_nothing_is_sent(loop: HandLoop) -> None:
    two = Two(loop)
    assert verify(PEERS, lambda public: link_of(two, public), None)["awaited"] == []
    assert not two.wire.to_right.sent
    two.close()


@pytest.mark.parametrize(("problem", "status"), [(NoSuchPeer("no such peer"), 404), (AmbiguousPeer("several"), 409)])
def test_a_peer_that_cannot_be_told_is_refused_with_the_reason(problem: Exception, status: int) -> None:
    def fail(_: str | None) -> dict[str, object]:
        raise problem

    answer = follow(verify_routes(fail), "POST", "/v1/verify?peer=x")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.content) == (status, {"error": str(problem)})


def test_only_post_and_only_the_peer_are_taken() -> None:
    asked: list[str | None] = []

    def ask(called: str | None) -> dict[str, object]:
        asked.append(called)
        return {}

    def status(method: str, target: str) -> int:
        answer = follow(verify_routes(ask), method, target)
        assert isinstance(answer, Answer)
        return answer.status

    assert [status("GET", "/v1/verify"), status("POST", "/v1/verify?who=x")] == [405, 404]
    assert [status("POST", "/v1/verify"), status("POST", "/v1/verify?peer=a+b")] == [200, 200]
    assert asked == [None, "a+b"]
