"""Protected bursts: cut with a parity, read and joined with it and without; what a forger can put in their place."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.test_burst import datagrams, join, scatter, sealed
from vpntun.wire.burst import BurstCutter, length_within, parity_of, place_of

SIZE = 46
STEP = SIZE - 16
IMPOSSIBLE = (0, 1, STEP + 2, 0x0100, 65535)
"""Lengths of a filling."""

lengths = st.integers(1500, 60_000)
sizes = st.integers(1040, 1499)


def protected(data: bytes, size: int = SIZE) -> list[bytes]:
    return datagrams(data, size, protected=True)


def xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


def filled_with(sent: list[bytes], filling: int) -> list[bytes]:
    """The same burst, as if its last piece said this of the filling."""
    *pieces, last, parity = sent
    return [*pieces, last[:-2] + filling.to_bytes(2, "big"), parity]


def test_every_datagram_has_the_messages_header_its_place_and_one_size() -> None:
    data = sealed(100)
    sent = protected(data)
    assert [datagram[:4] for datagram in sent] == [b"\4\0\2\1", b"\4\1\2\1", b"\4\2\2\1", b"\4\3\2\1"]
    assert {datagram[4:16] for datagram in sent} == {data[4:16]}
    assert [len(datagram) for datagram in sent] == [SIZE] * 4
    assert [place_of(datagram) for datagram in sent] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_parity_is_the_exclusive_or_of_the_pieces() -> None:
    *pieces, parity = (datagram[16:] for datagram in protected(sealed(1000)))
    assert parity == reduce(xor, pieces) == parity_of(pieces, STEP)


@pytest.mark.parametrize(
    ("body", "count", "filling"),
    [
        pytest.param(2 * STEP - 3, 2, 3, id="ends three before a piece's end"),
        pytest.param(2 * STEP - 2, 2, 2, id="ends two before a piece's end"),
        pytest.param(2 * STEP - 1, 3, STEP + 1, id="ends one before a piece's end"),
        pytest.param(2 * STEP, 3, STEP, id="ends with a piece"),
        pytest.param(2 * STEP + 1, 3, STEP - 1, id="ends one behind a piece's end"),
        pytest.param(STEP + 1, 2, STEP - 1, id="hardly does not fit"),
    ],
)
def test_the_filling_is_zeros_and_its_own_length(body: int, count: int, filling: int) -> None:
    data = sealed(16 + body)
    sent = protected(data)
    assert len(sent) == count + 1
    joined = b"".join(datagram[16:] for datagram in sent[:-1])
    assert joined == data[16:] + bytes(filling - 2) + filling.to_bytes(2, "big")
    assert join(b"".join(sent), SIZE) == (data, len(sent) * SIZE)
    assert scatter(b"".join(sent), SIZE, SIZE)[0] == data


@given(st.integers(2, 63), st.integers(1, 2000), st.integers(0, 65535))
def test_the_length_of_a_filling_is_two_to_one_more_than_a_piece_or_it_can_not_be(
    count: int, step: int, filling: int
) -> None:
    filled = memoryview(bytes(16 + count * step - 2) + filling.to_bytes(2, "big"))
    assert length_within(filled, step) == (len(filled) - filling if 2 <= filling <= step + 1 else 0)


def test_a_message_that_fits_goes_whole() -> None:
    assert protected(sealed(SIZE)) == [sealed(SIZE)]
    assert len(protected(sealed(SIZE + 1))) == 3


def test_64_datagrams_are_the_most_the_parity_among_them() -> None:
    assert len(protected(sealed(16 + 63 * 10 - 2), 26)) == 64
    with pytest.raises(ValueError, match="64 datagrams"):
        protected(sealed(16 + 63 * 10 - 1), 26)


def test_one_cutter_serves_protected_and_other_messages_by_turns() -> None:
    buffer = bytearray(65535)
    cutter = BurstCutter(memoryview(buffer))
    for length, size, with_parity in (
        (60000, 1472, True),
        (60000, 1472, False),
        (50, 1472, True),
        (20000, 1472, True),
        (20000, 1200, False),
        (20000, 1200, True),
        (1500, 1472, True),
    ):
        data = sealed(length, length)
        buffer[:length] = data
        cut = b"".join(cutter.cut(length, size, protected=with_parity))
        assert cut == b"".join(datagrams(data, size, protected=with_parity))


@settings(deadline=None)
@given(lengths, sizes)
def test_a_protected_message_comes_back_whole_with_its_parity_and_without(length: int, size: int) -> None:
    data = sealed(length)
    sent = protected(data, size)
    assert [place_of(datagram) for datagram in sent] == [(index, len(sent) - 1) for index in range(len(sent))]
    assert {len(datagram) for datagram in sent} == {size}
    assert join(b"".join(sent), size) == (data, len(sent) * size)
    assert join(b"".join(sent[:-1]), size) == (data, (len(sent) - 1) * size)


@settings(deadline=None)
@given(lengths, sizes)
def test_a_foreseen_read_of_a_protected_burst_is_whole_where_it_was_put(length: int, size: int) -> None:
    data = sealed(length)
    read = b"".join(protected(data, size))
    assert scatter(read, size, size) == (data, read)
    assert scatter(read, size + 1, size) == (b"", read)


def test_a_foreseen_read_that_misses_a_piece_or_the_parity_is_no_message() -> None:
    sent = protected(sealed(100))
    for missing in range(len(sent)):
        read = b"".join(sent[:missing] + sent[missing + 1 :])
        assert scatter(read, SIZE, SIZE) == (b"", read)


def test_a_foreseen_read_that_is_not_of_one_size_or_holds_more_is_no_message() -> None:
    whole = b"".join(protected(sealed(100)))
    for read in (whole[:-1], whole[: -SIZE + 16], whole + b"x", whole + whole[:SIZE], whole[SIZE:] + whole[:SIZE]):
        assert scatter(read, SIZE, SIZE) == (b"", read)


def test_a_foreseen_read_with_any_header_byte_forged_is_no_message() -> None:
    whole = b"".join(protected(sealed(100)))
    for begin in range(0, len(whole), SIZE):
        for at in range(begin, begin + 16):
            for flip in (1, 2, 0x80):
                read = bytearray(whole)
                read[at] ^= flip
                assert scatter(bytes(read), SIZE, SIZE) == (b"", bytes(read))


def test_the_fourth_byte_is_0_or_1_in_all_datagrams_or_there_is_no_message() -> None:
    sent = protected(sealed(100))
    for fourth in (2, 3, 0x81, 0xFF):
        read = b"".join(datagram[:3] + bytes((fourth,)) + datagram[4:] for datagram in sent)
        assert scatter(read, SIZE, SIZE) == (b"", read)
        assert join(read, SIZE) == (b"", 0)


def test_a_filling_that_can_not_be_is_no_message_and_harms_no_byte() -> None:
    for filling in IMPOSSIBLE:
        read = b"".join(filled_with(protected(sealed(100)), filling))
        assert scatter(read, SIZE, SIZE) == (b"", read)
        assert join(read, SIZE) == (b"", 0)


def test_64_pieces_are_no_protected_burst_to_foresee() -> None:
    read = b"".join(bytes((4, index, 63, 1)) + bytes(SIZE - 5) + b"\2" for index in range(65))
    assert scatter(read, SIZE, SIZE)[0] == b""
    assert scatter(read[:-SIZE], SIZE, SIZE) == (b"", read[:-SIZE])


def test_protected_records_in_one_read_are_joined_one_after_the_other_and_a_lost_parity_is_not_missed() -> None:
    first, second, third = sealed(1000, 8), sealed(500, 9), sealed(100, 10)
    read = b"".join(protected(first) + protected(second)[:-1] + protected(third))
    joined, at = join(read, SIZE)
    assert joined == first
    joined, at = join(read, SIZE, at)
    assert joined == second
    assert join(read, SIZE, at) == (third, len(read))


def test_a_datagram_behind_that_is_not_the_parity_of_this_record_is_left_there() -> None:
    *pieces, parity = protected(sealed(100))
    stranger = bytearray(parity)
    stranger[4] ^= 1
    others = (protected(sealed(100, 8))[-1], bytes(stranger), sealed(SIZE, 8), pieces[0], parity[:15], b"\4")
    for other in others:
        assert join(b"".join(pieces) + other, SIZE) == (sealed(100), len(pieces) * SIZE)


def test_a_protected_burst_that_misses_a_piece_or_has_a_shorter_one_is_left_alone() -> None:
    sent = protected(sealed(100))
    *pieces, parity = sent
    for missing in range(len(pieces)):
        for behind in ([], [parity], [parity, *protected(sealed(100, 8))]):
            read = b"".join(pieces[:missing] + pieces[missing + 1 :] + behind)
            assert join(read, SIZE) == (b"", 0)
    shorter = b"".join(pieces)[:-4] + b"\0\5"  # a filling that could be
    for read in (shorter, shorter[:-3], shorter[: -STEP + 3], b"".join(pieces[1:]), parity, parity[:16]):
        assert join(read, SIZE) == (b"", 0)


def test_the_last_piece_has_to_be_of_the_first_ones_kind() -> None:
    a, b, c, parity = protected(sealed(100))
    for read in (a + b + c[:3] + b"\0" + c[4:] + parity, a[:3] + b"\0" + a[4:] + b + c + parity):
        assert join(read, SIZE) == (b"", 0)


parts = st.one_of(
    st.sampled_from(protected(sealed(100)) + protected(sealed(200, 8)) + datagrams(sealed(100), SIZE)),
    st.builds(
        lambda index, rest, third, body: bytes((4, index, rest, third)) + body,
        st.integers(0, 4),
        st.sampled_from((0, 1, 2, 3, 62, 63, 64, 255)),
        st.integers(0, 2),
        st.sampled_from((bytes(42), bytes(12), b"\0" * 41 + b"\2", b"\xff" * 42, b"")),
    ),
)


@settings(deadline=None)
@given(st.lists(parts, max_size=12), st.integers(17, 60), st.sampled_from((SIZE, SIZE, 17, 45)), st.integers(0, 600))
def test_arbitrary_datagrams_and_reads_raise_nothing(waiting: list[bytes], expected: int, size: int, at: int) -> None:
    read = b"".join(waiting)
    for foreseen in (expected, size):
        message, flat = scatter(read, foreseen, size)
        assert flat == read
        assert len(message) == 0 or len(message) >= 32
    begin = min(at, len(read))
    joined, behind = join(read, size, begin)
    assert (len(joined) >= 32 and begin < behind <= len(read)) or (joined == b"" and behind == begin)
    if joined:
        assert joined[:4] == b"\4\0\0\0"
