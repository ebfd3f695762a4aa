"""Requests and answers: packing and parsing are inverse, and a hostile peer's nonsense raises only BadPacket."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire.inside.request import (
    DEEPEST,
    DOCTOR,
    LARGEST_ANSWER,
    MOST_PIECES,
    SPEED,
    Answer,
    Request,
    answers_of,
    pack_body,
    parse_body,
)

u8, u64 = st.integers(0, 2**8 - 1), st.integers(0, 2**64 - 1)
bodies = st.binary(min_size=1, max_size=1000)
contents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)

BIG, DEEP = b'{"a":' + b"9" * 5400 + b"}", b'{"a":' * 3000


def test_the_fields_are_where_the_table_puts_them() -> None:
    id = bytes(range(1, 9))
    number = int.from_bytes(id, "big")
    assert Request(number, DOCTOR, b"{}").pack() == b"\x07" + id + b"\x01{}"
    assert Request(number, SPEED, b"{}").pack() == b"\x07" + id + b"\x02{}"
    assert Answer(number, 2, 3, b"{}").pack() == b"\x08" + id + b"\x02\x03{}"


@given(u64, u8, bodies)
def test_a_request_is_parsed_as_it_was_packed(id: int, what: int, body: bytes) -> None:
    request = Request(id, what, body)
    assert Request.parse(request.pack()) == request


@given(u64, st.binary(min_size=1, max_size=LARGEST_ANSWER))
def test_the_pieces_of_an_answer_make_the_whole_and_each_fits_in_any_datagram(id: int, body: bytes) -> None:
    records = [answer.pack() for answer in answers_of(id, body)]
    pieces = [Answer.parse(record) for record in records]
    assert max(map(len, records)) <= 1011
    assert [piece.piece for piece in pieces] == list(range(pieces[0].pieces))
    assert b"".join(piece.body for piece in pieces) == body


@pytest.mark.parametrize(
    "record",
    [
        b"\x07" + bytes(9),  # no body
        b"\x07" + bytes(9 + 1001),  # too long
        b"\x08" + bytes(9) + b"\x01x",  # a byte short of a body
        b"\x06" + bytes(20),  # another kind
    ],
)
def test_a_bad_request_is_refused(record: bytes) -> None:
    with pytest.raises(BadPacket, match="bad request"):
        Request.parse(record)


@pytest.mark.parametrize(("piece", "pieces"), [(0, 0), (1, 1), (2, 1), (16, 17), (0, 17), (255, 255)])
def test_an_answers_piece_is_one_of_its_pieces_and_those_are_few(piece: int, pieces: int) -> None:
    with pytest.raises(BadPacket, match="bad answer"):
        Answer.parse(Answer(1, piece, pieces, b"{}").pack())
    assert Answer.parse(Answer(1, MOST_PIECES - 1, MOST_PIECES, b"{}").pack()).pieces == MOST_PIECES


@given(st.binary(max_size=1100), st.sampled_from([7, 8]))
def test_no_bytes_raise_anything_but_bad_packet(noise: bytes, kind: int) -> None:
    for parse in (Request.parse, Answer.parse, parse_body):
        for record in (noise, bytes([kind]) + noise):
            with suppress(BadPacket):
                parse(record)


@given(contents)
def test_a_body_is_parsed_as_it_was_packed(content: dict[str, Any]) -> None:
    assert parse_body(pack_body(content)) == content


def test_a_body_may_have_few_levels() -> None:
    levels = DEEPEST - 1
    deep = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
    assert json.dumps(parse_body(deep)).count("[") == levels
    with pytest.raises(BadPacket, match="bad body"):
        parse_body(deep.replace(b"[]", b"[{}]"))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"1", b"{", b'{"a":NaN}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":"\xff"}', b"[" * 1000, BIG, DEEP],
    ids=lambda body: bytes(body[:12]).decode("latin-1"),
)
def test_a_body_that_is_no_object_of_finite_values_is_refused(body: bytes) -> None:
    with pytest.raises(BadPacket, match="bad body"):
        parse_body(body)
