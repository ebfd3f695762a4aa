"""WireGuard's four messages: legal ones, refused ones, and packing as the inverse of parsing."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire import message
from vpntun.wire.message import CookieReply, Initiation, Response

SIZES = {1: {148}, 2: {92}, 3: {64}, 4: set(range(32, 65536))}

index = st.integers(0, 2**32 - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def refusal(parse: Callable[[bytes], object], data: bytes) -> str:
    with pytest.raises(BadPacket) as caught:
        parse(data)
    return caught.value.reason


def of_type(kind: int, size: int) -> bytes:
    return (struct.pack("<I", kind) + bytes(max(size - 4, 0)))[:size]


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 255])
def test_a_type_is_legal_only_in_its_own_size(kind: int) -> None:
    for size in range(201):
        data = of_type(kind, size)
        if size in SIZES.get(kind, set()):
            assert message.kind_of(data) == kind
        else:
            expected = "bad size" if size < 4 or kind in SIZES else "bad type"
            assert refusal(message.kind_of, data) == expected


@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64), (4, 32), (4, 1452)])
@pytest.mark.parametrize("place", [1, 2, 3])
def test_reserved_bytes_must_be_zero(kind: int, size: int, place: int) -> None:
    data = bytearray(of_type(kind, size))
    data[place] = 1
    assert refusal(message.kind_of, bytes(data)) == "bad reserved"


def test_a_data_message_has_at_most_65535_bytes() -> None:
    assert message.kind_of(of_type(4, 65535)) == message.DATA
    assert refusal(message.kind_of, of_type(4, 65536)) == "bad size"


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken(wrap: Callable[[bytes], Any]) -> None:
    data = wrap(message.DATA_HEADER.pack(message.DATA, 7, 9) + bytes(16))
    assert message.kind_of(data) == message.DATA
    assert message.receiver_of(data) == 7
    packed = Response(1, 2, bytes(32), bytes(16), bytes(16), bytes(16)).pack()
    assert message.receiver_of(wrap(packed)) == 2
    assert message.sender_of(wrap(packed)) == 1
    assert Response.parse(wrap(packed)).pack() == packed


def test_the_fields_are_where_wireguard_puts_them() -> None:
    initiation = Initiation(0x04030201, b"e" * 32, b"s" * 48, b"t" * 28, b"m" * 16, b"n" * 16).pack()
    assert initiation[:8] == bytes([1, 0, 0, 0, 1, 2, 3, 4])
    assert [initiation.index(field) for field in (b"e", b"s", b"t", b"m", b"n")] == [8, 40, 88, 116, 132]
    response = Response(0x04030201, 0x08070605, b"e" * 32, b"y" * 16, b"m" * 16, b"n" * 16).pack()
    assert response[:12] == bytes([2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert [response.index(field) for field in (b"e", b"y", b"m", b"n")] == [12, 44, 60, 76]
    reply = CookieReply(0x04030201, b"o" * 24, b"c" * 32).pack()
    assert reply[:8] == bytes([3, 0, 0, 0, 1, 2, 3, 4])
    assert [reply.index(field) for field in (b"o", b"c")] == [8, 32]


@given(st.builds(Initiation, index, exactly(32), exactly(48), exactly(28), exactly(16), exactly(16)))
def test_an_initiation_is_parsed_as_it_was_packed(sent: Initiation) -> None:
    packed = sent.pack()
    assert len(packed) == message.INITIATION_SIZE
    assert message.kind_of(packed) == message.INITIATION
    assert Initiation.parse(packed) == sent


@given(st.builds(Response, index, index, exactly(32), exactly(16), exactly(16), exactly(16)))
def test_a_response_is_parsed_as_it_was_packed(sent: Response) -> None:
    packed = sent.pack()
    assert len(packed) == message.RESPONSE_SIZE
    assert message.receiver_of(packed) == sent.receiver
    assert message.sender_of(packed) == sent.sender
    assert Response.parse(packed) == sent


@given(st.builds(CookieReply, index, exactly(24), exactly(32)))
def test_a_cookie_reply_is_parsed_as_it_was_packed(sent: CookieReply) -> None:
    packed = sent.pack()
    assert len(packed) == message.COOKIE_REPLY_SIZE
    assert message.receiver_of(packed) == sent.receiver
    assert CookieReply.parse(packed) == sent


@pytest.mark.parametrize("parse", [Initiation.parse, Response.parse, CookieReply.parse])
def test_another_kind_of_message_is_a_bad_type(parse: Callable[[bytes], object]) -> None:
    assert refusal(parse, of_type(4, 32)) == "bad type"


def test_an_initiation_has_no_receiver() -> None:
    assert refusal(message.receiver_of, of_type(1, 148)) == "bad type"


anything = st.binary(max_size=200) | st.builds(of_type, st.integers(0, 6), st.integers(0, 200))


@given(anything)
def test_arbitrary_bytes_only_ever_raise_bad_packet(data: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [
        message.kind_of,
        message.receiver_of,
        Initiation.parse,
        Response.parse,
        CookieReply.parse,
    ]
    for parse in parsers:
        try:
            parse(data)
        except BadPacket as refused:
            assert refused.reason in {"bad size", "bad type", "bad reserved"}
