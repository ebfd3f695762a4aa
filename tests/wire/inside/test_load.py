"""LOAD, the record of speed tests: packing and parsing are inverse, and nonsense raises only BadPacket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire.inside.load import SMALLEST_LOAD, id_of, new_load
from vpntun.wire.record import LARGEST_RECORD, LOAD

u64 = st.integers(0, 2**64 - 1)


def test_the_fields_are_where_the_table_puts_them() -> None:
    load = new_load(0x0102030405060708)
    assert bytes(load[:12]) == b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0"
    assert len(load) == LARGEST_RECORD
    assert not any(load[SMALLEST_LOAD:])


@given(u64, st.integers(SMALLEST_LOAD, LARGEST_RECORD))
def test_the_id_is_read_as_it_was_written_whatever_the_size(id: int, size: int) -> None:
    assert id_of(new_load(id)[:size]) == id


@given(st.binary(max_size=40))
def test_nonsense_raises_only_bad_packet(data: bytes) -> None:
    if len(data) >= SMALLEST_LOAD and data[0] == LOAD:
        assert 0 <= id_of(data) < 2**64
    else:
        with pytest.raises(BadPacket):
            id_of(data)
