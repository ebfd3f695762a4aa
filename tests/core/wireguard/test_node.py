"""What a node takes in: whom it knows by key and by index, and what it drops, unanswered and unchanged."""

from __future__ import annotations

import pytest

from tests.core.fakes import FakeEndpoint
from tests.core.pair import (
    AT_LEFT,
    AT_RIGHT,
    CLIENT_KEYS,
    SERVER_KEYS,
    STRANGER_KEYS,
    Pair,
    Side,
    only,
)
from vpntun.core.wireguard.node import Node
from vpntun.crypto.session import REJECT_AFTER_TIME
from vpntun.errors import BadPacket, ConfigurationError
from vpntun.wire.message import COOKIE_REPLY, COOKIE_REPLY_SIZE, Initiation, receiver_of


@pytest.fixture
def pair() -> Pair:
    return Pair()


def reason(pair: Pair, message: bytes) -> str:
    """The reason for which the right end drops a handshake message."""
    with pytest.raises(BadPacket) as caught:
        pair.right.node.receive_handshake(message, AT_LEFT, pair.now)
    return caught.value.reason


def state_of(side: Side) -> tuple[object, ...]:
    return len(side.node.indices), side.peer.keys.all(), side.peer.endpoint, side.peer.timers.earliest()


def test_an_initiation_leads_to_the_peer_of_its_key_and_a_response_to_the_handshake_of_its_index(pair: Pair) -> None:
    peer, events = pair.right.node.receive_handshake(pair.initiation(), AT_LEFT, pair.now)
    assert peer is pair.right.peer
    peer, _ = pair.left.node.receive_handshake(only(events), AT_RIGHT, pair.now)
    assert peer is pair.left.peer
    assert pair.left.peer.keys.current is not None


def test_a_data_message_leads_to_the_session_and_the_peer_of_its_index(pair: Pair) -> None:
    pair.shake_hands()
    message = pair.left.data(b"x", pair.now)
    owner = pair.right.node.session_for(message, pair.now)
    assert (owner.peer, owner.session) == (pair.right.peer, pair.right.current())
    assert pair.right.node.session_at(receiver_of(message), pair.now) is owner


def test_of_two_peers_each_has_its_own_messages(pair: Pair) -> None:
    node = pair.right.node
    other = Side(STRANGER_KEYS, SERVER_KEYS.public, pair.rng)
    known = Side(SERVER_KEYS, STRANGER_KEYS.public, pair.rng)
    node.add(known.peer)
    at = FakeEndpoint("other")
    assert node.receive_handshake(only(other.peer.initiate(at, pair.now)), at, pair.now)[0] is known.peer
    assert node.receive_handshake(pair.initiation(), AT_LEFT, pair.now)[0] is pair.right.peer


def test_an_initiation_of_a_key_that_nobody_added_is_dropped(pair: Pair) -> None:
    stranger = Side(STRANGER_KEYS, SERVER_KEYS.public, pair.rng)
    before = state_of(pair.right)
    assert reason(pair, only(stranger.peer.initiate(AT_RIGHT, pair.now))) == "unknown peer"
    assert state_of(pair.right) == before


def test_an_initiation_that_its_peer_refuses_names_the_sender(pair: Pair) -> None:
    initiation = pair.initiation()
    pair.to_right(initiation)
    pair.now += 1
    with pytest.raises(BadPacket, match="old timestamp") as caught:
        pair.to_right(initiation)
    assert caught.value.sender is pair.right.peer


def test_an_initiation_to_another_key_is_dropped_before_the_sender_is_known(pair: Pair) -> None:
    astray = Side(CLIENT_KEYS, STRANGER_KEYS.public, pair.rng)
    with pytest.raises(BadPacket) as caught:
        pair.to_right(only(astray.peer.initiate(AT_RIGHT, pair.now)))
    assert (caught.value.reason, caught.value.sender) == ("bad mac1", None)


def test_a_response_to_no_handshake_or_to_a_sessions_index_is_dropped(pair: Pair) -> None:
    response = only(pair.to_right(pair.initiation()))
    assert reason(pair, response) == "unknown index"
    pair.to_left(response)
    with pytest.raises(BadPacket, match="unknown index"):
        pair.to_left(response)  # its index is a session's now


@pytest.mark.parametrize("message", [b"", b"\1", bytes(148), bytes([9]) + bytes(147)], ids=["empty", "short", "0", "9"])
def test_what_is_no_message_is_dropped(pair: Pair, message: bytes) -> None:
    before = state_of(pair.right)
    with pytest.raises(BadPacket):
        pair.right.node.receive_handshake(message, AT_LEFT, pair.now)
    assert state_of(pair.right) == before


def test_a_cookie_is_dropped_since_nobody_asked_for_one(pair: Pair) -> None:
    assert reason(pair, bytes([COOKIE_REPLY]) + bytes(COOKIE_REPLY_SIZE - 1)) == "unasked cookie"


def test_a_data_message_is_no_handshake_message(pair: Pair) -> None:
    pair.shake_hands()
    assert reason(pair, pair.left.data(b"x", pair.now)) == "bad type"


def test_data_for_an_index_of_nobody_or_of_a_handshake_has_no_session(pair: Pair) -> None:
    asking = Initiation.parse(pair.initiation()).sender
    for number in (asking, asking ^ 1):
        with pytest.raises(BadPacket, match="unknown index"):
            pair.left.node.session_at(number, pair.now)


def test_data_of_a_session_past_its_age_is_dropped(pair: Pair) -> None:
    pair.shake_hands()
    message = pair.left.data(b"x", pair.now)
    assert pair.right.node.session_for(message, pair.now + REJECT_AFTER_TIME - 0.01)
    with pytest.raises(BadPacket, match="expired session"):
        pair.right.node.session_for(message, pair.now + REJECT_AFTER_TIME)


def test_a_peer_that_was_removed_leaves_nothing_behind(pair: Pair) -> None:
    pair.shake_hands()
    late = pair.left.data(b"x", pair.now)
    pair.now += 5
    asking = pair.initiation()
    pair.right.node.remove(pair.right.peer)
    assert pair.right.node.peers == {}
    assert len(pair.right.node.indices) == 0
    with pytest.raises(BadPacket, match="unknown index"):
        pair.right.node.session_for(late, pair.now)
    assert reason(pair, asking) == "unknown peer"


def test_without_a_private_key_no_initiation_is_accepted(pair: Pair) -> None:
    initiation = pair.initiation()
    node = Node(None)
    with pytest.raises(BadPacket, match="no private key yet"):
        node.receive_handshake(initiation, AT_LEFT, pair.now)
    node.identity = SERVER_KEYS
    with pytest.raises(BadPacket, match="unknown peer"):
        node.receive_handshake(initiation, AT_LEFT, pair.now)


def test_the_own_key_is_no_peers() -> None:
    node = Node(SERVER_KEYS)
    itself = Side(CLIENT_KEYS, SERVER_KEYS.public, Pair().rng).peer
    with pytest.raises(ConfigurationError, match="this end's own"):
        node.add(itself)
    assert node.peers == {}
