"""Endpoints inside the tunnel, which the host refuses: no peer's endpoint ever moves to one."""

from __future__ import annotations

from random import Random

import pytest

from tests.core.fakes import FakeEndpoint
from tests.core.pair import AT_LEFT, AT_RIGHT, CLIENT_KEYS, ELSEWHERE, SERVER_KEYS, Pair, Side, only, refusal
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Established, Moved
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.server import ServerCarriers

INSIDE = FakeEndpoint("inside")
INSIDE_OVER_TCP = FakeEndpoint("inside", "tcp")


class Host:
    """A host that refuses endpoints inside the tunnel; `asked` lists the endpoints that it was asked about."""

    def __init__(self) -> None:
        self.inside: list[Endpoint] = [INSIDE, INSIDE_OVER_TCP]
        self.asked: list[Endpoint] = []

    def may_be_at(self, endpoint: Endpoint) -> bool:
        self.asked.append(endpoint)
        return endpoint not in self.inside


def guarded(*, client: bool = False) -> tuple[Pair, Host]:
    """A pair whose right end (with a client, whose left end) has such a host."""
    pair, host = Pair(), Host()
    if client:
        pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, chooses_carrier=True, may_be_at=host.may_be_at)
        pair.left.peer.endpoint = AT_RIGHT
    else:
        pair.right = Side(SERVER_KEYS, CLIENT_KEYS.public, pair.rng, may_be_at=host.may_be_at)
    return pair, host


@pytest.mark.parametrize("inside", [INSIDE, INSIDE_OVER_TCP], ids=["udp", "tcp"])
def test_data_from_inside_is_accepted_but_nothing_is_sent_there(inside: FakeEndpoint) -> None:
    pair, _ = guarded()
    pair.shake_hands()
    assert pair.to_right(pair.left.data(b"from inside", pair.now), inside) == []
    assert pair.right.received == [b"from inside"]
    assert pair.right.peer.endpoint == AT_LEFT
    assert Moved(ELSEWHERE, AT_LEFT) in pair.to_right(pair.left.data(b"x", pair.now), ELSEWHERE)


def test_a_peer_without_an_endpoint_gets_none_from_data_from_inside() -> None:
    pair, _ = guarded()
    pair.to_left(only(pair.to_right(pair.initiation())))
    first = only(pair.left.peer.keepalive(AT_RIGHT, pair.now))
    assert pair.to_right(first, INSIDE) == [Established(INSIDE, initiator=False)]
    assert pair.right.peer.endpoint is None


def test_data_moves_the_peer_once_the_route_leads_elsewhere() -> None:
    pair, host = guarded()
    pair.shake_hands()
    pair.to_right(pair.left.data(b"x", pair.now), INSIDE)
    host.inside.clear()
    assert pair.to_right(pair.left.data(b"x", pair.now), INSIDE) == [Moved(INSIDE, AT_LEFT)]


def test_an_initiation_from_inside_is_dropped_and_the_same_one_is_answered_elsewhere() -> None:
    pair, _ = guarded()
    asked = pair.initiation()
    assert refusal(pair.right, asked, INSIDE, pair.now) == "routing loop"
    assert len(pair.right.node.indices) == 0
    assert only(pair.to_right(asked))


def test_a_replayed_initiation_does_not_make_the_host_look_up_a_route() -> None:
    pair, host = guarded()
    asked = pair.initiation()
    pair.to_right(asked)
    host.asked.clear()
    assert refusal(pair.right, asked, INSIDE, pair.now) == "old timestamp"
    assert host.asked == []


def test_a_response_from_inside_is_dropped_and_the_next_handshake_succeeds() -> None:
    pair, _ = guarded(client=True)
    response = only(pair.to_right(pair.initiation()))
    assert refusal(pair.left, response, INSIDE, pair.now) == "routing loop"
    assert pair.left.peer.sending_session(pair.now) is None
    pair.now += 5
    assert pair.to_left(only(pair.to_right(pair.initiation()))) == [Established(AT_RIGHT, initiator=True)]
    assert len(pair.left.node.indices) == 1


def test_a_server_that_asked_does_not_move_inside() -> None:
    pair, _ = guarded()
    selector = ServerCarriers(pair.right.peer, Random(3))
    assert selector.established(INSIDE, pair.now, initiator=True) == []
    assert pair.right.peer.endpoint is None


def test_a_searching_client_goes_on_searching_when_the_server_answers_from_inside() -> None:
    pair, _ = guarded(client=True)
    pair.left.peer.endpoint = None
    selector = ClientCarriers(pair.left.peer, "udp", Random(3))
    selector.resolved([AT_RIGHT], pair.now)
    selector.start(pair.now)
    assert selector.established(INSIDE, pair.now, initiator=False) == []
    assert selector.searching
    assert pair.left.peer.endpoint is None
    assert selector.established(AT_RIGHT, pair.now, initiator=False) == [Moved(AT_RIGHT, None)]
    assert not selector.searching


def test_a_client_does_not_follow_its_server_inside() -> None:
    pair, _ = guarded(client=True)
    pair.shake_hands()
    pair.left.peer.move_to(AT_RIGHT)
    assert pair.to_left(pair.right.data(b"from inside", pair.now), INSIDE) == []
    assert pair.left.peer.endpoint == AT_RIGHT


def test_a_verified_path_inside_is_not_used() -> None:
    pair, _ = guarded(client=True)
    pair.shake_hands()
    selector = ClientCarriers(pair.left.peer, "auto", Random(3))
    assert selector.verified(INSIDE, pair.now) == []
    assert pair.left.peer.endpoint == AT_RIGHT


def test_no_method_moves_the_endpoint_inside() -> None:
    pair, _ = guarded()
    assert pair.right.peer.move_to(INSIDE) == []
    assert pair.right.peer.endpoint is None


def test_the_host_is_not_asked_about_the_endpoint_in_use() -> None:
    pair, host = guarded()
    pair.shake_hands()
    host.asked.clear()
    pair.now += 121
    pair.shake_hands()
    pair.to_right(pair.left.data(b"x", pair.now), FakeEndpoint("left"))
    assert host.asked == []
