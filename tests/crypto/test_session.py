"""Data messages of a session: layout, ages, limits, replays and buffers.

Case numbers are those of tests/core/test_attacks.py.
"""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import flipped, open_, refusal, seal, sessions
from vpntun.crypto import session as constants
from vpntun.crypto.session import REJECT_AFTER_MESSAGES, Session, SessionExhausted
from vpntun.wire import message as wire


def test_the_constants_are_those_of_the_paper() -> None:
    assert (constants.REKEY_AFTER_TIME, constants.REJECT_AFTER_TIME) == (120, 180)
    assert constants.REKEY_ON_RECEIVE_AFTER == 165
    assert constants.REKEY_AFTER_MESSAGES == 2**60
    assert REJECT_AFTER_MESSAGES == 2**64 - 2**13 - 1


def test_a_message_has_the_header_of_the_paper_and_the_counter_goes_up() -> None:
    left, right = sessions()
    for counter in range(3):
        message = seal(left, b"hello")
        assert len(message) == 5 + 32
        assert wire.kind_of(message) == wire.DATA
        assert wire.receiver_of(message) == right.local_index == left.remote_index
        assert wire.DATA_HEADER.unpack_from(message)[2] == counter
        assert left.send_counter == counter + 1
        assert open_(right, message) == b"hello"
        assert right.highest_received == counter


def test_a_session_that_has_received_nothing_has_no_highest_counter() -> None:
    left, _ = sessions()
    assert left.highest_received == -1


def test_buffers_may_be_longer_and_are_not_written_beyond() -> None:
    left, right = sessions()
    buffer = memoryview(bytearray(b"#" * 100))
    size = left.seal_into(b"hello", buffer)
    assert buffer[size:] == b"#" * (100 - size)
    plaintext = memoryview(bytearray(b"#" * 100))
    assert right.open_into(buffer[:size], plaintext) == 5
    assert bytes(plaintext) == b"hello" + b"#" * 95


def test_a_packet_is_sealed_and_opened_in_place() -> None:
    left, right = sessions()
    buffer = memoryview(bytearray(16 + 1420 + 16))
    packet = bytes(range(142)) * 10
    buffer[16:-16] = packet
    assert left.seal_into(buffer[16:-16], buffer) == len(buffer)
    assert right.open_into(buffer, buffer[16:]) == 1420
    assert buffer[16:-16] == packet


def test_a_message_that_does_not_fit_is_an_error_of_the_caller() -> None:
    left, right = sessions()
    with pytest.raises(ValueError):
        left.seal_into(b"hello", memoryview(bytearray(36)))
    with pytest.raises(ValueError):
        right.open_into(seal(left, b"hello"), memoryview(bytearray(4)))


def test_case_15_a_replay_is_refused_and_disorder_is_not() -> None:
    left, right = sessions()
    messages = [seal(left, bytes([number])) for number in range(5)]
    for number in (4, 0, 3, 1, 2):
        assert open_(right, messages[number]) == bytes([number])
    assert right.highest_received == 4
    for message in messages:
        assert refusal(open_, right, message) == "replayed"


def test_case_15_a_forged_counter_does_not_move_the_window() -> None:
    left, right = sessions()
    message = seal(left, b"hello")
    far = message[:8] + (10**6).to_bytes(8, "little") + message[16:]
    assert refusal(open_, right, far) == "bad tag"
    assert right.highest_received == -1
    assert not right.replay.seen(0)
    assert open_(right, message) == b"hello"


def test_case_15_a_counter_at_the_limit_is_never_sent_and_never_accepted() -> None:
    left, right = sessions()
    left.send_counter = REJECT_AFTER_MESSAGES - 1
    assert left.may_send(0)
    last = seal(left, b"last")
    assert not left.may_send(0)
    with pytest.raises(SessionExhausted):
        seal(left, b"one more")
    assert left.send_counter == REJECT_AFTER_MESSAGES
    assert open_(right, last) == b"last"

    # A message that a broken peer sealed in spite of the limit.
    message = memoryview(bytearray(32))
    wire.DATA_HEADER.pack_into(message, 0, wire.DATA, right.local_index, REJECT_AFTER_MESSAGES)
    seal_buffer = left._sealer
    assert seal_buffer is not None
    seal_buffer.seal_into(REJECT_AFTER_MESSAGES, b"", message[16:])
    assert refusal(open_, right, bytes(message)) == "replayed"


def test_case_20_a_session_ends_180_seconds_after_it_began() -> None:
    left, right = sessions(created=1000.0)
    for session in (left, right):
        assert session.may_send(1179.9)
        assert session.may_receive(1179.9)
        assert not session.may_send(1180.0)
        assert not session.may_receive(1180.0)


def test_case_20_a_wiped_session_neither_seals_nor_opens() -> None:
    left, right = sessions()
    message = seal(left, b"hello")
    for session in (left, right):
        session.wipe()
        assert not session.may_send(0)
        assert not session.may_receive(0)
    with pytest.raises(SessionExhausted):
        seal(left, b"hello")
    assert refusal(open_, right, message) == "no session"


def test_changing_any_byte_the_session_checks_is_detected() -> None:
    left, right = sessions()
    message = seal(left, b"hello")
    for place in range(8, len(message)):
        assert refusal(open_, right, flipped(message, place)) == "bad tag"
    assert open_(right, message) == b"hello"


def test_messages_do_not_open_at_the_end_that_sealed_them() -> None:
    left, _ = sessions()
    message = seal(left, b"hello")
    assert refusal(open_, left, message) == "bad tag"


RECEIVER: Session = sessions()[1]


@given(st.binary(max_size=200) | st.binary(min_size=28, max_size=200).map(lambda body: b"\x04\0\0\0" + body))
def test_arbitrary_bytes_at_open_into_only_raise_bad_packet(data: bytes) -> None:
    assert refusal(open_, RECEIVER, data) in {"bad size", "bad tag"}
    assert RECEIVER.highest_received == -1


@given(st.lists(st.binary(max_size=300), max_size=20), st.randoms(use_true_random=False))
def test_every_message_arrives_once_in_any_order(texts: list[bytes], random: Random) -> None:
    left, right = sessions()
    messages = [(seal(left, text), text) for text in texts]
    random.shuffle(messages)
    for message, text in messages:
        assert open_(right, message) == text
    for message, _ in messages:
        assert refusal(open_, right, message) == "replayed"
