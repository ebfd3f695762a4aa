"""WireGuard's handshake between two ends, and every way in which it must fail.

A case number names one kind of attack, here and in tests/core/test_attacks.py.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import (
    LEFT,
    LOW_ORDER_POINTS,
    PSK,
    RIGHT,
    STAMP,
    flipped,
    halfway,
    initiate,
    open_,
    refusal,
    seal,
    sessions,
    shake_hands,
)
from vpntun.crypto import noise
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator, consume_initiation, mac1_key
from vpntun.errors import BadPacket
from vpntun.wire.message import Initiation, Response


def with_genuine_mac1(message: bytes, recipient: KeyPair) -> bytes:
    """The message with the mac1 that anyone who knows the recipient's public key can compute."""
    covered = message[:-32]
    key = hashlib.blake2s(b"mac1----" + recipient.public).digest()
    return covered + hashlib.blake2s(covered, key=key, digest_size=16).digest() + bytes(16)


def test_both_ends_have_the_same_keys_crosswise() -> None:
    left, right = shake_hands()
    assert left.send == right.receive
    assert left.receive == right.send
    assert left.send != left.receive


def test_data_goes_both_ways_after_a_handshake() -> None:
    left, right = sessions()
    for text in (b"ping", b"", b"x" * 1420):
        assert open_(right, seal(left, text)) == text
        assert open_(left, seal(right, text)) == text


def test_the_messages_carry_sender_time_and_index() -> None:
    initiator = Initiator(LEFT, RIGHT.public, PSK)
    message = initiator.initiation(0xAABBCCDD, STAMP)
    assert len(message) == 148
    received = consume_initiation(RIGHT, message)
    assert (received.peer, received.timestamp, received.sender) == (LEFT.public, STAMP, 0xAABBCCDD)
    response, _ = received.respond(PSK, 0x11223344)
    assert len(response) == 92
    parsed = Response.parse(response)
    assert (parsed.sender, parsed.receiver) == (0x11223344, 0xAABBCCDD)
    assert Initiation.parse(message).mac2 == parsed.mac2 == bytes(16)
    assert with_genuine_mac1(message, RIGHT) == message
    assert with_genuine_mac1(response, LEFT) == response
    assert mac1_key(RIGHT.public) == hashlib.blake2s(b"mac1----" + RIGHT.public).digest()


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken(wrap: Any) -> None:
    initiator, message = initiate()
    response, keys = consume_initiation(RIGHT, wrap(message)).respond(PSK, 2)
    assert initiator.consume_response(wrap(response)).send == keys.receive


def test_given_ephemeral_keys_make_the_messages_repeatable() -> None:
    one, other = KeyPair.generate(), KeyPair.generate()

    def messages() -> tuple[bytes, bytes]:
        first = Initiator(LEFT, RIGHT.public, PSK, one).initiation(1, STAMP)
        return first, consume_initiation(RIGHT, first).respond(PSK, 2, other)[0]

    assert messages() == messages()
    assert initiate()[1] != initiate()[1]


def test_an_initiator_makes_only_one_initiation_since_a_second_would_repeat_a_nonce() -> None:
    initiator, _ = initiate()
    with pytest.raises(RuntimeError, match="one initiation"):
        initiator.initiation(1, STAMP)


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_case_6_a_low_order_ephemeral_under_a_valid_mac1_is_dropped(point: bytes) -> None:
    _, message = initiate()
    forged = with_genuine_mac1(message[:8] + point + message[40:], RIGHT)
    assert refusal(consume_initiation, RIGHT, forged) == "low-order point"

    initiator, received = halfway()
    response, _ = received.respond(PSK, 2)
    forged = with_genuine_mac1(response[:12] + point + response[44:], LEFT)
    assert refusal(initiator.consume_response, forged) == "low-order point"
    initiator.consume_response(response)


def test_case_6_a_low_order_peer_in_the_configuration_fails_its_handshake_only() -> None:
    initiator = Initiator(LEFT, bytes(32), PSK)
    assert refusal(initiator.initiation, 1, STAMP) == "low-order point"


def test_case_9_a_corrupted_response_does_not_spoil_the_genuine_one() -> None:
    initiator, received = halfway()
    response, right = received.respond(PSK, 2)
    for place in range(76):
        with pytest.raises(BadPacket):
            initiator.consume_response(flipped(response, place))
    # With a valid mac1 a forgery gets as far as the tag. (Only mac1 protects the indices, bytes 4 to 12.)
    for place in [*range(4), *range(12, 60)]:
        with pytest.raises(BadPacket):
            initiator.consume_response(with_genuine_mac1(flipped(response, place), LEFT))
    assert initiator.consume_response(response).send == right.receive


def test_case_9_a_replayed_or_unasked_response_is_dropped() -> None:
    initiator, received = halfway()
    response, _ = received.respond(PSK, 2)
    initiator.consume_response(response)
    assert refusal(initiator.consume_response, response) == "unasked response"
    silent = Initiator(LEFT, RIGHT.public, PSK)
    assert refusal(silent.consume_response, response) == "unasked response"
    later, _ = initiate()
    assert refusal(later.consume_response, response) == "bad tag"


def test_case_12_every_changed_byte_before_mac2_is_refused() -> None:
    _, message = initiate()
    for place in range(len(message) - 16):
        with pytest.raises(BadPacket):
            consume_initiation(RIGHT, flipped(message, place))


def test_case_12_a_bad_mac1_is_refused_before_any_diffie_hellman() -> None:
    _, message = initiate()
    low_order = message[:8] + bytes(32) + message[40:]
    assert refusal(consume_initiation, RIGHT, low_order) == "bad mac1"
    assert refusal(consume_initiation, KeyPair.generate(), message) == "bad mac1"


def test_case_12_a_forged_static_key_or_timestamp_under_a_valid_mac1_is_a_bad_tag() -> None:
    _, message = initiate()
    for place in (8, 40, 87, 88, 115):
        forged = with_genuine_mac1(flipped(message, place), RIGHT)
        assert refusal(consume_initiation, RIGHT, forged) == "bad tag"


def test_case_12_another_ends_static_key_without_its_private_key_is_a_bad_tag() -> None:
    liar = KeyPair(KeyPair.generate().private, LEFT.public)
    message = Initiator(liar, RIGHT.public, PSK).initiation(1, STAMP)
    assert refusal(consume_initiation, RIGHT, message) == "bad tag"


def test_case_12_a_wrong_psk_is_a_bad_tag_at_the_initiator() -> None:
    initiator, received = halfway()
    wrong, _ = received.respond(bytes(32), 2)
    assert refusal(initiator.consume_response, wrong) == "bad tag"
    response, right = received.respond(PSK, 3)
    assert initiator.consume_response(response).send == right.receive


def test_case_13_our_own_key_in_a_handshake_is_refused() -> None:
    message = Initiator(RIGHT, RIGHT.public, PSK).initiation(1, STAMP)
    assert refusal(consume_initiation, RIGHT, message) == "own key"


def test_case_13_own_messages_reflected_are_a_bad_mac1() -> None:
    initiator, message = initiate()
    assert refusal(consume_initiation, LEFT, message) == "bad mac1"
    assert refusal(initiator.consume_response, message) == "bad type"


def test_case_24_mac1_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def watching(one: bytes, other: bytes) -> bool:
        compared.append((bytes(one), bytes(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", watching)
    _, message = initiate()
    mac1 = Initiation.parse(message).mac1
    consume_initiation(RIGHT, message)
    assert compared == [(mac1, mac1)]


def test_no_secret_is_shown() -> None:
    initiator, received = halfway()
    _, keys = received.respond(PSK, 2)
    assert repr(keys) == "SessionKeys()"
    shown = repr(initiator) + repr(received)
    assert repr(PSK) not in shown
    assert "_state" not in shown


initiation_like = st.binary(min_size=144, max_size=144).map(lambda body: b"\x01\0\0\0" + body)
response_like = st.binary(min_size=88, max_size=88).map(lambda body: b"\x02\0\0\0" + body)
anything = st.binary(max_size=200)
PARSER_REASONS = {"bad size", "bad type", "bad reserved", "bad mac1", "bad tag", "low-order point"}


@given(anything | initiation_like | initiation_like.map(lambda message: with_genuine_mac1(message, RIGHT)))
def test_arbitrary_bytes_at_consume_initiation_only_raise_bad_packet(data: bytes) -> None:
    assert refusal(consume_initiation, RIGHT, data) in PARSER_REASONS


@given(anything | response_like | response_like.map(lambda message: with_genuine_mac1(message, LEFT)))
def test_arbitrary_bytes_at_consume_response_only_raise_bad_packet(data: bytes) -> None:
    initiator, received = halfway()
    assert refusal(initiator.consume_response, data) in PARSER_REASONS
    response, _ = received.respond(PSK, 2)
    initiator.consume_response(response)


def test_the_prologue_is_wireguards() -> None:
    assert noise.PROLOGUE == b"WireGuard v1 zx2c4 Jason@zx2c4.com"
