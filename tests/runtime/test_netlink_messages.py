"""Netlink's messages and attributes: what is packed is found again, and no bytes keep a parser busy for ever."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from vpntun.runtime.netlink_messages import (
    HEADER,
    NLM_F_REQUEST,
    attribute,
    attributes_in,
    error_in,
    message,
    messages_in,
)

ATTRIBUTES = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20), max_size=5)


@given(ATTRIBUTES)
def test_attributes_are_found_as_they_were_packed(sent: dict[int, bytes]) -> None:
    packed = b"".join(attribute(kind, value) for kind, value in sent.items())
    assert len(packed) % 4 == 0
    assert attributes_in(packed, 0, len(packed)) == sent


def test_attributes_with_impossible_lengths_end() -> None:
    assert attributes_in(bytes(64), 0, 64) == {0: b""}
    assert attributes_in(bytes((255, 0, 1, 0, 7)), 0, 5) == {1: b"\7"}


@given(
    st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=9).map(lambda body: body + bytes(-len(body) % 4))))
)
def test_messages_are_found_as_they_were_packed(sent: list[tuple[int, bytes]]) -> None:
    data = b"".join(message(kind, 4, number, body) for number, (kind, body) in enumerate(sent))
    places = list(messages_in(data))
    assert [(each.kind, data[each.begin : each.end]) for each in places] == sent
    assert [each.sequence for each in places] == list(range(len(sent)))
    assert {each.flags for each in places} <= {NLM_F_REQUEST | 4}


@given(st.binary(max_size=200))
def test_any_bytes_hold_a_bounded_number_of_messages(data: bytes) -> None:
    assert len(list(messages_in(data))) <= len(data) // HEADER.size


def test_an_error_is_a_positive_number() -> None:
    assert error_in((-2).to_bytes(4, sys.byteorder, signed=True), 0) == 2
    assert error_in(bytes(4), 0) == 0
