"""Messages of a pairing: what was packed is parsed again, and anything else is BadPacket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.pairing.messages import SIZE, TYPE, VERSION, Message, Number, OtherVersion, Reason
from vpntun.errors import BadPacket
from vpntun.wire.message import SMALLEST
from vpntun.wire.stream_framing import LARGEST_BEFORE_AUTHENTICATION

bodies = st.binary(min_size=32, max_size=32)
HEADER = bytes([TYPE, VERSION, Number.OPEN, 0])


@given(st.sampled_from(Number), bodies, st.integers(0, 255))
def test_a_message_is_parsed_as_it_was_made(number: Number, body: bytes, reason: int) -> None:
    message = Message(number, body, reason)
    assert Message.parse(message.pack()) == message
    assert len(message.pack()) == SIZE


def test_the_layout_is_that_of_the_protocol_document() -> None:
    assert Message(Number.ANSWER, bytes(range(32))).pack() == bytes([0xA0, 1, 2, 0, *range(32)])
    assert Message.refused(Reason.WRONG_CODE, 2).pack() == bytes([0xA0, 1, 8, 1, 2]) + bytes(31)


def test_a_refusal_tells_how_many_tries_are_left() -> None:
    refused = Message.parse(Message.refused(Reason.WRONG_CODE, 2).pack())
    assert (refused.reason, refused.tries_left) == (Reason.WRONG_CODE, 2)


def test_a_message_fits_the_framing_before_authentication_and_has_no_type_of_wireguard() -> None:
    assert SMALLEST <= SIZE <= LARGEST_BEFORE_AUTHENTICATION
    assert TYPE not in range(1, 5)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: HEADER + rest))
def test_arbitrary_bytes_are_a_message_or_bad_packet(received: bytes) -> None:
    try:
        assert Message.parse(received).pack() == received
    except BadPacket:
        assert len(received) != SIZE or received[:2] != HEADER[:2] or received[2] not in set(Number)


@pytest.mark.parametrize("size", [0, 1, 2, SIZE - 1, SIZE + 1])
def test_a_message_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(BadPacket):
        Message.parse((HEADER + bytes(40))[:size])


@pytest.mark.parametrize("number", [0, 9, 255])
def test_an_unknown_number_is_refused(number: int) -> None:
    with pytest.raises(BadPacket, match="bad pairing message"):
        Message.parse(bytes([TYPE, VERSION, number, 0]) + bytes(32))


def test_another_version_is_recognised_whatever_its_size() -> None:
    with pytest.raises(OtherVersion):
        Message.parse(bytes([TYPE, VERSION + 1]))
