"""Attacks on handshakes and data: each is dropped, gets no answer and changes nothing.

A case number names one kind of attack, here and in tests/crypto.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from tests.core.pair import (
    AT_LEFT,
    AT_RIGHT,
    CLIENT_KEYS,
    ELSEWHERE,
    PSK,
    SERVER_KEYS,
    STRANGER_KEYS,
    Pair,
    Side,
    only,
    refusal,
    seal,
    sent,
    with_mac1,
)
from tests.crypto.pair import LOW_ORDER_POINTS
from vpntun.core.endpoint import Endpoint
from vpntun.core.wireguard.admission import MANY
from vpntun.core.wireguard.node import Node
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator
from vpntun.errors import BadPacket, ConfigurationError
from vpntun.types import NEVER
from vpntun.wire.message import Buffer

State = tuple[object, ...]


def state(side: Side) -> State:
    """All state of a side that a message could change."""
    peer, timers = side.peer, side.peer.timers
    sessions = [(id(each), each.send_counter, each.highest_received) for each in peer.keys.all()]
    deadlines = timers.keepalive, timers.new_handshake, timers.zero_keys, timers.persistent
    return (peer.endpoint, sessions, deadlines, len(side.node.indices), peer.last_handshake, list(side.received))


def flipped(message: bytes, place: int) -> bytes:
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_case_6_a_low_order_ephemeral_is_dropped_and_the_genuine_message_still_works(point: bytes) -> None:
    pair = Pair()
    initiation = pair.initiation()
    forged = with_mac1(initiation[:8] + point + initiation[40:], SERVER_KEYS.public)
    before = state(pair.right)
    assert refusal(pair.right, forged, AT_LEFT, pair.now) == "low-order point"
    assert state(pair.right) == before
    response = only(pair.to_right(initiation))
    forged = with_mac1(response[:12] + point + response[44:], CLIENT_KEYS.public)
    before = state(pair.left)
    assert refusal(pair.left, forged, AT_RIGHT, pair.now) == "low-order point"
    assert state(pair.left) == before
    pair.to_left(response)
    pair.confirm()
    pair.assert_data_flows()


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=bytes.hex)
def test_case_6_a_peer_whose_key_is_a_low_order_point_is_sent_nothing(point: bytes) -> None:
    pair = Pair()
    side = Side(CLIENT_KEYS, point, pair.rng, keepalive=25)
    assert side.peer.initiate(AT_RIGHT, pair.now) == []
    assert side.peer.timers.persistent == NEVER, "nothing was sent"
    assert side.peer.initiate_also(ELSEWHERE, pair.now) == []
    assert side.peer.handle_timers(pair.now + 600) == []
    assert len(side.node.indices) == 0


def test_case_7_an_initiation_with_the_same_timestamp_is_not_answered() -> None:
    pair = Pair()
    initiation = pair.initiation()
    pair.to_right(initiation)
    before = state(pair.right)
    for later in (0.0, 10.0, 1000.0):
        assert refusal(pair.right, initiation, ELSEWHERE, pair.now + later) == "old timestamp"
    assert state(pair.right) == before


def test_case_7_and_8_an_initiation_with_an_older_timestamp_is_not_answered() -> None:
    pair = Pair()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(500))
    pair.shake_hands()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(499))
    pair.now += 30
    before = state(pair.right)
    assert refusal(pair.right, pair.initiation(), AT_LEFT, pair.now) == "old timestamp"
    assert state(pair.right) == before
    # The next ones are later than 500: the clock has caught up, and the peer is in again.
    for _ in range(2):
        pair.now += 5
        initiation = pair.initiation()
    assert sent(pair.to_right(initiation))


def test_a_timestamp_from_the_future_keeps_the_peer_out_until_it_is_forgotten() -> None:
    pair = Pair()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(500 + 86_400))
    pair.shake_hands()
    pair.left = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng, timestamps=FakeTimestamps(500))
    for _ in range(3):
        pair.now += 3600
        assert refusal(pair.right, pair.initiation(), AT_LEFT, pair.now) == "old timestamp"
    pair.right.peer.forget_timestamp()
    pair.now += 5
    pair.shake_hands()
    pair.assert_data_flows()


def test_forgetting_a_timestamp_keeps_the_session_and_refuses_replays_again_after_the_next_handshake() -> None:
    pair = Pair()
    recorded = pair.initiation()
    pair.to_left(only(pair.to_right(recorded)))
    pair.confirm()
    pair.right.peer.forget_timestamp()
    pair.assert_data_flows()
    pair.now += 121
    pair.shake_hands()
    before = state(pair.right)
    assert refusal(pair.right, recorded, ELSEWHERE, pair.now + 1) == "old timestamp"
    assert state(pair.right) == before


def test_case_7_two_initiations_within_20_milliseconds_get_one_reply() -> None:
    pair = Pair()
    first, second = pair.initiation(), pair.initiation(FakeEndpoint("right", "tcp"))
    assert sent(pair.to_right(first))
    before = state(pair.right)
    assert refusal(pair.right, second, AT_LEFT, pair.now + 0.0199) == "initiations too fast"
    assert state(pair.right) == before
    pair.now += 0.0201
    assert sent(pair.to_right(second))


def test_case_9_a_corrupted_response_leaves_the_handshake_waiting_for_the_genuine_one() -> None:
    pair = Pair()
    response = only(pair.to_right(pair.initiation()))
    before = state(pair.left)
    for place in range(4, 76):
        assert refusal(pair.left, flipped(response, place), AT_RIGHT, pair.now) in {"unknown index", "bad mac1"}
    # Anyone who knows the public key can compute mac1. (Only mac1 protects the sender's index, bytes 4-7.)
    for place in range(8, 60):
        forged = with_mac1(flipped(response, place), CLIENT_KEYS.public)
        assert refusal(pair.left, forged, AT_RIGHT, pair.now) in {"unknown index", "bad tag"}
    assert state(pair.left) == before
    pair.to_left(response)
    pair.confirm()
    pair.assert_data_flows()


def test_case_9_a_replayed_response_is_dropped_in_every_state() -> None:
    pair = Pair()
    response = only(pair.to_right(pair.initiation()))
    strange = Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng)
    assert refusal(strange, response, AT_RIGHT, pair.now) == "unknown index"
    pair.to_left(response)
    for _ in range(3):
        before = state(pair.left)
        assert refusal(pair.left, response, ELSEWHERE, pair.now) == "unknown index"
        assert state(pair.left) == before
        pair.now += 121
        answer = only(pair.to_right(pair.initiation()))
        assert refusal(pair.left, response, ELSEWHERE, pair.now) == "unknown index"
        pair.to_left(answer)
    pair.confirm()
    pair.assert_data_flows()
    pair.left.peer.handle_timers(pair.now + 600)
    assert refusal(pair.left, response, AT_RIGHT, pair.now + 600) == "unknown index"


def test_case_9_a_response_to_another_initiation_does_not_pass_for_this_one() -> None:
    pair = Pair()
    old = only(pair.to_right(pair.initiation()))
    pair.now += 5
    initiation = pair.initiation()
    forged = with_mac1(old[:8] + initiation[4:8] + old[12:], CLIENT_KEYS.public)
    before = state(pair.left)
    assert refusal(pair.left, forged, AT_RIGHT, pair.now) == "bad tag"
    assert state(pair.left) == before
    pair.to_left(only(pair.to_right(initiation)))
    pair.confirm()
    pair.assert_data_flows()


def admitted(side: Side, message: Buffer, source: Endpoint, now: float) -> str:
    """What becomes of a message at a side's door: "waits", "cookie", or the reason why it is refused."""
    try:
        return "cookie" if side.node.admit(message, source, now) else "waits"
    except BadPacket as bad:
        return bad.reason


def flood(side: Side, count: int, now: float) -> Counter[str]:
    """Send initiations of a stranger with a valid mac1, of which nothing is computed; return what becomes of them."""
    message = Initiator(STRANGER_KEYS, side.node.identity.public, PSK).initiation(9, bytes(12))  # type: ignore[union-attr]
    return Counter(admitted(side, message, ELSEWHERE, now) for _ in range(count))


def test_case_10_a_flood_with_valid_mac1_gets_cookies_takes_bounded_memory_and_leaves_sessions_alone() -> None:
    pair = Pair()
    pair.shake_hands()
    before = state(pair.right)
    assert flood(pair.right, 5000, pair.now) == {"waits": MANY, "cookie": 5000 - MANY}
    assert len(pair.right.node.admission) == MANY
    assert state(pair.right) == before
    pair.assert_data_flows()


def test_case_10_a_peer_gets_in_during_a_flood() -> None:
    pair = Pair()
    flood(pair.right, 5000, pair.now)
    reply = pair.right.node.admit(pair.initiation(), AT_LEFT, pair.now)
    assert pair.to_left(reply) == []
    pair.now += 0.5
    pair.left.peer.forget_handshake("udp")
    second = pair.initiation()
    assert admitted(pair.right, second, AT_LEFT, pair.now) == "waits"
    pair.to_left(only(pair.to_right(second)))
    pair.confirm()
    pair.assert_data_flows()


def test_case_11_an_unasked_cookie_is_dropped() -> None:
    pair = Pair()
    pair.shake_hands()
    before = state(pair.left)
    for index in (b"\0\0\0\0", pair.left.current().local_index.to_bytes(4, "little")):
        assert refusal(pair.right, b"\3\0\0\0" + index + bytes(56), AT_RIGHT, pair.now) == "unasked cookie"
    assert state(pair.left) == before


def test_case_11_a_forged_or_replayed_cookie_is_dropped_and_changes_nothing() -> None:
    pair = Pair()
    flood(pair.right, MANY, pair.now)
    reply = pair.right.node.admit(pair.initiation(), AT_LEFT, pair.now)
    before = state(pair.left)
    for place in range(8, 64):
        assert refusal(pair.left, flipped(reply, place), AT_RIGHT, pair.now) == "bad tag"
    pair.to_left(reply)
    assert refusal(pair.left, reply, AT_RIGHT, pair.now) == "unasked cookie"
    assert state(pair.left) == before


def test_case_11_mac2_from_another_address_gets_a_new_cookie() -> None:
    pair = Pair()
    flood(pair.right, MANY, pair.now)
    pair.to_left(pair.right.node.admit(pair.initiation(), AT_LEFT, pair.now))
    pair.left.peer.forget_handshake("udp")
    second = pair.initiation()
    other = FakeEndpoint("other")
    other.origin = bytes((203, 0, 113, 7, 0, 7))
    assert admitted(pair.right, second, other, pair.now) == "cookie"
    assert admitted(pair.right, second, AT_LEFT, pair.now) == "waits"


def test_case_12_an_unknown_key_gets_no_answer() -> None:
    pair = Pair()
    initiation = Initiator(STRANGER_KEYS, SERVER_KEYS.public, PSK).initiation(1, FakeTimestamps().next())
    before = state(pair.right)
    assert refusal(pair.right, initiation, ELSEWHERE, pair.now) == "unknown peer"
    assert state(pair.right) == before


def test_case_12_a_wrong_preshared_key_never_makes_a_session() -> None:
    # The preshared key is first used in the response: the responder cannot detect a wrong one, the initiator drops it.
    pair = Pair(left_psk=b"q" * 32)
    response = only(pair.to_right(pair.initiation()))
    before = state(pair.left)
    assert refusal(pair.left, response, AT_RIGHT, pair.now) == "bad tag"
    assert state(pair.left) == before
    assert pair.left.peer.sending_session(pair.now) is None
    assert pair.right.peer.sending_session(pair.now) is None


def test_case_12_a_bad_mac1_gets_no_answer() -> None:
    pair = Pair()
    initiation = pair.initiation()
    before = state(pair.right)
    for place in range(4, 132):
        assert refusal(pair.right, flipped(initiation, place), ELSEWHERE, pair.now) == "bad mac1"
    for_another = with_mac1(initiation, STRANGER_KEYS.public)
    assert refusal(pair.right, for_another, ELSEWHERE, pair.now) == "bad mac1"
    assert state(pair.right) == before
    assert sent(pair.to_right(initiation))


def test_case_13_reflected_messages_are_dropped() -> None:
    pair = Pair()
    initiation = pair.initiation()
    before = state(pair.left)
    assert refusal(pair.left, initiation, AT_RIGHT, pair.now) == "bad mac1"
    assert state(pair.left) == before
    response = only(pair.to_right(initiation))
    before = state(pair.right)
    assert refusal(pair.right, response, AT_LEFT, pair.now) == "unknown index"
    assert state(pair.right) == before
    pair.to_left(response)
    pair.confirm()
    before = state(pair.left)
    data = seal(pair.left.current(), b"x")
    assert refusal(pair.left, data, AT_RIGHT, pair.now) in {"unknown index", "bad tag"}
    assert state(pair.left)[0] == before[0]
    assert pair.left.received == []


def test_case_13_an_initiation_with_our_own_key_is_dropped_and_such_a_peer_is_refused() -> None:
    pair = Pair()
    own = Initiator(SERVER_KEYS, SERVER_KEYS.public, PSK).initiation(1, FakeTimestamps().next())
    assert refusal(pair.right, own, ELSEWHERE, pair.now) == "own key"
    node = Node(SERVER_KEYS)
    with pytest.raises(ConfigurationError, match="this end's own"):
        node.add(Side(CLIENT_KEYS, SERVER_KEYS.public, pair.rng).peer)
    assert node.peers == {}


def test_case_14_an_old_initiation_replayed_after_a_restart_leaves_the_session_and_endpoint_alone() -> None:
    pair = Pair()
    replayed = pair.initiation()
    pair.to_left(only(pair.to_right(replayed)))
    pair.confirm()
    # Right restarts, forgets the timestamps, and gets a session again by its own initiation.
    pair.right = Side(SERVER_KEYS, CLIENT_KEYS.public, pair.rng)
    pair.right.peer.endpoint = AT_LEFT
    pair.now += 30
    pair.to_right(only(pair.to_left(only(pair.right.peer.initiate(AT_LEFT, pair.now)))))
    pair.to_left(only(pair.right.peer.keepalive(AT_LEFT, pair.now)))
    current = pair.right.current()
    pair.to_right(replayed, ELSEWHERE)
    assert pair.right.current() is current
    assert pair.right.peer.endpoint == AT_LEFT
    pair.assert_data_flows()
    assert refusal(pair.right, replayed, ELSEWHERE, pair.now + 1) == "old timestamp"


def test_case_14_a_replay_that_was_answered_does_not_keep_the_peer_out() -> None:
    pair = Pair()
    replayed = pair.initiation()
    pair.right.take(replayed, ELSEWHERE, pair.now)
    pair.now += 5
    pair.shake_hands()
    pair.assert_data_flows()


def test_case_15_a_replayed_data_message_is_dropped() -> None:
    pair = Pair()
    pair.shake_hands()
    message = pair.left.data(b"once", pair.now)
    pair.to_right(message)
    before = state(pair.right)
    assert refusal(pair.right, message, AT_LEFT, pair.now) == "replayed"
    assert state(pair.right) == before


@pytest.mark.parametrize("place", [4, 8, 15, 16, 20, -1])
def test_case_16_forged_data_from_a_new_address_moves_nothing(place: int) -> None:
    pair = Pair()
    pair.shake_hands()
    message = pair.left.data(b"hello", pair.now)
    before = state(pair.right)
    assert refusal(pair.right, flipped(message, place % len(message)), ELSEWHERE, pair.now) in {
        "bad tag",
        "unknown index",
    }
    assert state(pair.right) == before
    pair.to_right(message)
    assert pair.right.received == [b"hello"]


def test_case_16_replayed_data_from_a_new_address_moves_nothing() -> None:
    pair = Pair()
    pair.shake_hands()
    message = pair.left.data(b"hello", pair.now)
    pair.to_right(message)
    assert refusal(pair.right, message, ELSEWHERE, pair.now) == "replayed"
    assert pair.right.peer.endpoint == AT_LEFT


def test_case_20_data_before_a_handshake_is_dropped() -> None:
    pair = Pair()
    initiation = pair.initiation()
    response = only(pair.to_right(initiation))
    # Addressed to no index in use, and to the handshake that is under way.
    assert refusal(pair.left, b"\4\0\0\0" + bytes(60), AT_RIGHT, pair.now) == "unknown index"
    assert refusal(pair.left, b"\4\0\0\0" + initiation[4:8] + bytes(60), AT_RIGHT, pair.now) == "unknown index"
    pair.to_left(response)
    pair.confirm()
    pair.assert_data_flows()


def test_case_20_data_after_180_seconds_is_dropped() -> None:
    pair = Pair()
    pair.shake_hands()
    message = pair.left.data(b"late", pair.now)
    before = state(pair.right)
    assert refusal(pair.right, message, ELSEWHERE, pair.now + 180) == "expired session"
    assert state(pair.right) == before


def test_case_20_data_of_a_session_that_was_replaced_is_dropped() -> None:
    pair = Pair()
    pair.shake_hands()
    message = pair.left.data(b"late", pair.now)
    for _ in range(2):
        pair.now += 10
        pair.shake_hands()
    before = state(pair.right)
    assert refusal(pair.right, message, ELSEWHERE, pair.now) == "unknown index"
    assert state(pair.right) == before


def ready_side() -> tuple[Pair, dict[str, bytes]]:
    """A pair with a session and a handshake under way, and genuine messages to corrupt."""
    pair = Pair()
    pair.shake_hands()
    pair.now += 10
    genuine = {"initiation": pair.initiation(), "data": pair.left.data(b"x" * 40, pair.now)}
    genuine["response"] = only(pair.to_right(genuine["initiation"]))
    pair.now += 10
    genuine["initiation"] = pair.initiation(FakeEndpoint("right", "tcp"))
    return pair, genuine


PAIR, GENUINE = ready_side()


def assert_only_bad_packet_and_no_change(message: bytes) -> None:
    for side in (PAIR.left, PAIR.right):
        before = state(side)
        with pytest.raises(BadPacket):
            side.node.receive_handshake(message, ELSEWHERE, PAIR.now)
        assert state(side) == before
        with suppress(BadPacket):  # a corrupted data message may still name a session; it then fails when it is opened
            side.node.session_for(message, PAIR.now)
        assert state(side) == before


@given(
    st.binary(max_size=200)
    | st.builds(lambda kind, rest: bytes([kind, 0, 0, 0]) + rest, st.integers(0, 5), st.binary(max_size=200))
)
def test_arbitrary_bytes_raise_only_bad_packet_and_change_nothing(message: bytes) -> None:
    assert_only_bad_packet_and_no_change(message)


@given(st.sampled_from(sorted(GENUINE)), st.data(), st.sampled_from([CLIENT_KEYS, SERVER_KEYS, None]))
def test_corrupted_messages_raise_only_bad_packet_and_change_nothing(
    kind: str, data: st.DataObject, made_whole: KeyPair | None
) -> None:
    genuine = GENUINE[kind]
    place = data.draw(st.integers(0, len(genuine) - 33))
    maimed = genuine[:place] + data.draw(st.binary(min_size=1, max_size=8)) + genuine[place:]
    maimed = maimed[: data.draw(st.sampled_from([len(genuine), len(maimed), place]))]
    if made_whole is not None and len(maimed) > 32 and kind != "data":
        maimed = with_mac1(maimed, made_whole.public)
    if maimed[: len(genuine) - 32] != genuine[: len(genuine) - 32]:
        assert_only_bad_packet_and_no_change(maimed)


def test_case_22_junk_handshakes_leave_nothing_behind() -> None:
    pair = Pair()
    pair.shake_hands()
    genuine, before = pair.left.peer.initiate(AT_RIGHT, pair.now + 5), state(pair.right)
    junk = bytearray(only(genuine))
    tracemalloc.start()
    try:
        for number in range(20_000):
            junk[8:12] = number.to_bytes(4, "little")
            assert admitted(pair.right, junk, ELSEWHERE, pair.now) == "bad mac1"
            if number == 1000:
                at_first, _ = tracemalloc.get_traced_memory()
        assert tracemalloc.get_traced_memory()[0] - at_first < 10_000
    finally:
        tracemalloc.stop()
    assert len(pair.right.node.admission) == 0
    assert state(pair.right) == before


@pytest.mark.parametrize("size", range(201))
def test_case_1_every_length_of_every_type_is_dropped(size: int) -> None:
    for kind in (0, 1, 2, 3, 4, 5, 255):
        for reserved in (b"\0\0\0", b"\0\0\1", b"\1\0\0"):
            assert_only_bad_packet_and_no_change((bytes([kind]) + reserved + bytes(200))[:size])
