"""Bursts: cutting, coalesced reads, joining, and forged pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire import message
from vpntun.wire.burst import BurstCutter, BurstReader, datagrams_for, join_in_order, parity_of, place_of


def sealed(length: int, counter: int = 7) -> bytes:
    body = bytes((counter + at * 7 + at // 251) & 0xFF for at in range(length - 16))
    return message.DATA_HEADER.pack(message.DATA, 0x01020304, counter) + body


def datagrams(data: bytes, size: int, *, protected: bool = False) -> list[bytes]:
    cutter = BurstCutter(memoryview(bytearray(data)))
    buffers = [bytes(each) for each in cutter.cut(len(data), size, protected=protected)]
    if len(buffers) == 1:
        return buffers
    return [header + piece for header, piece in zip(buffers[::2], buffers[1::2], strict=True)]


def join(read: bytes, size: int, at: int = 0) -> tuple[bytes, int]:
    out = memoryview(bytearray(b"\xee" * 65535))
    length, behind = join_in_order(memoryview(read), at, size, out)
    return bytes(out[:length]), behind


def scatter(read: bytes, expected: int, segment: int) -> tuple[bytes, bytes]:
    """Fill the buffers in order, as the kernel would."""
    buffer = memoryview(bytearray(b"\xee" * 65535))
    reader = BurstReader(buffer)
    reader.expect(expected)
    at = 0
    for each in reader.buffers:
        part = read[at : at + len(each)]
        each[: len(part)] = part
        at += len(part)
    flat = bytes(reader.flat(len(read)))
    return bytes(buffer[: reader.message(len(read), segment)]), flat


@settings(deadline=None)
@given(st.integers(32, 65535), st.integers(1040, 1500))
def test_an_expected_burst_is_joined_in_place_by_the_read(length: int, size: int) -> None:
    data = sealed(length)
    sent = datagrams(data, size)
    read = b"".join(sent)
    if len(sent) > 1 and len(read) <= 65535:
        assert scatter(read, size, size) == (data, read)
        assert scatter(read, size + 1, size) == (b"", read)


def test_one_cutter_serves_messages_of_different_lengths_and_sizes() -> None:
    buffer = bytearray(65535)
    cutter = BurstCutter(memoryview(buffer))
    for length, size in ((60000, 1472), (50, 1472), (20000, 1472), (20000, 1200), (30000, 1472)):
        data = sealed(length, length)
        buffer[:length] = data
        assert b"".join(cutter.cut(length, size)) == b"".join(datagrams(data, size))


def test_an_expected_read_that_is_not_exactly_one_whole_burst_in_order_gives_no_message() -> None:
    a, b, c, d = datagrams(sealed(16 + 100), 41)
    other = datagrams(sealed(16 + 100, 8), 41)
    whole = a + b + c + d
    assert scatter(whole, 41, 41)[0] == sealed(116)
    for read in (a + b + c, b + c + d, a + c + b + d, a + other[1] + c + d, whole + a, a, a[:16], d, b""):
        assert scatter(read, 41, 41) == (b"", read)


def test_an_expected_read_with_any_header_byte_forged_gives_no_message() -> None:
    whole = b"".join(datagrams(sealed(16 + 100), 41))
    for begin in range(0, len(whole), 41):
        for at in range(begin, begin + 16):
            for flip in (1, 2, 0x80):
                read = bytearray(whole)
                read[at] ^= flip
                assert scatter(bytes(read), 41, 41) == (b"", bytes(read))


def test_pieces_whose_fourth_byte_is_not_zero_give_no_message_even_if_all_agree() -> None:
    for fourth in (1, 2, 0x81, 0xFF):
        sent = datagrams(sealed(16 + 100), 41)
        read = b"".join(datagram[:3] + bytes((fourth,)) + datagram[4:] for datagram in sent)
        assert scatter(read, 41, 41) == (b"", read)
        assert join(read, 41) == (b"", 0)


def test_65_datagrams_and_pieces_too_short_for_a_message_are_not_joined() -> None:
    header = sealed(32)[4:16]
    for rest, size in ((64, 41), (1, 20)):
        read = b"".join(bytes((4, index, rest, 0)) + header + bytes(size - 16) for index in range(rest + 1))
        assert scatter(read, size, size) == (b"", read)
        assert join(read, size) == (b"", 0)


@given(st.binary(max_size=400), st.integers(17, 60), st.integers(0, 60))
def test_arbitrary_expected_reads_raise_nothing(read: bytes, expected: int, segment: int) -> None:
    message_read, flat = scatter(read, expected, segment)
    assert flat == read
    assert len(message_read) == 0 or len(message_read) >= 32


@settings(deadline=None)
@given(st.integers(32, 65535), st.integers(1040, 1500))
def test_a_cut_message_comes_back_whole(length: int, size: int) -> None:
    data = sealed(length)
    sent = datagrams(data, size)
    assert len(sent) == datagrams_for(length, size)
    assert {len(datagram) for datagram in sent[:-1]} <= {size}
    assert 0 < len(sent[-1]) <= size
    assert [place_of(datagram) for datagram in sent] == [(index, len(sent)) for index in range(len(sent))]
    if len(sent) == 1:
        assert sent == [data]
    else:
        assert join(b"".join(sent), size) == (data, sum(map(len, sent)))


def test_each_datagram_has_the_messages_header_with_its_index_and_count() -> None:
    data = sealed(40)
    sent = datagrams(data, 26)
    assert [datagram[:4] for datagram in sent] == [b"\4\0\2\0", b"\4\1\2\0", b"\4\2\2\0"]
    assert {datagram[4:16] for datagram in sent} == {data[4:16]}
    assert [len(datagram) for datagram in sent] == [26, 26, 20]
    assert {message.DATA_HEADER.unpack_from(datagram)[1:] for datagram in sent} == {(0x01020304, 7)}


@settings(deadline=None)
@given(st.integers(2, 63), st.integers(24, 1500), st.data())
def test_any_piece_of_a_protected_burst_is_the_xor_of_the_others_and_the_parity(
    count: int, size: int, data: st.DataObject
) -> None:
    whole = sealed(16 + count * (size - 16))
    *pieces, parity = datagrams(whole, size, protected=True)
    assert pieces == datagrams(whole, size)
    assert place_of(parity) == (count, count)
    assert parity[4:16] == whole[4:16]
    lost = data.draw(st.integers(0, count - 1))
    others = [piece[16:] for index, piece in enumerate([*pieces, parity]) if index != lost]
    assert parity_of(others, size - 16) == pieces[lost][16:]


@pytest.mark.parametrize(("length", "size"), [(16 + 299, 116), (16 + 64 * 100, 116), (116, 116)])
def test_a_burst_gets_no_parity_if_it_does_not_fill_its_pieces_has_64_or_is_a_whole_message(
    length: int, size: int
) -> None:
    assert datagrams(sealed(length), size, protected=True) == datagrams(sealed(length), size)


def test_an_expected_read_may_end_with_the_parity_of_its_own_burst_only() -> None:
    whole = sealed(16 + 100)
    *pieces, parity = datagrams(whole, 41, protected=True)
    read = b"".join(pieces)
    assert scatter(read + parity, 41, 41) == (whole, read + parity)
    other = datagrams(sealed(16 + 100, 8), 41, protected=True)[-1]
    for last in (other, pieces[0], parity[:1] + b"\5" + parity[2:], parity[:40]):
        assert scatter(read + last, 41, 41) == (b"", read + last)


def test_64_datagrams_are_the_most() -> None:
    assert len(datagrams(sealed(16 + 64 * 10), 26)) == 64
    with pytest.raises(ValueError, match="64 datagrams"):
        datagrams(sealed(16 + 64 * 10 + 1), 26)


def test_two_records_in_one_read_are_joined_one_after_the_other() -> None:
    first, second = sealed(16 + 30 * 4, 8), sealed(16 + 30 * 3 + 5, 9)
    read = b"".join(datagrams(first, 46) + datagrams(second, 46))
    joined, at = join(read, 46)
    assert joined == first
    assert join(read, 46, at) == (second, len(read))


def test_a_read_that_holds_no_whole_record_in_order_is_left_alone() -> None:
    a, b, c, d = datagrams(sealed(16 + 100), 41)
    other = datagrams(sealed(16 + 100, 8), 41)
    stranger = bytearray(d)
    stranger[4] ^= 1
    for read in (
        a + b + c,
        b + c + d,
        a + c,
        a + c + b,
        b + a + c + d,
        a + b + c + other[3],
        a + b + c + bytes(stranger),
        a + b + c + d[:16],
        a,
        a[:16],
        b"",
    ):
        assert join(read, 41) == (b"", 0)


def test_a_whole_message_is_not_joined() -> None:
    assert join(sealed(100), 100) == (b"", 0)
    assert join(sealed(100) + sealed(100, 8), 100) == (b"", 0)


def test_the_optimistic_join_does_not_vouch_for_the_middle() -> None:
    a, _, c, d = datagrams(sealed(16 + 100), 41)
    joined, behind = join(a + b"forgery".ljust(41, b".") + c + d, 41)
    assert behind == 4 * 41
    assert joined != sealed(116)  # opening the message detects this


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        pytest.param(b"\4\0\2\0" + bytes(12), "bad size", id="no ciphertext"),
        pytest.param(b"\4\0\0\0" + bytes(27), "bad size", id="whole message of 31 bytes"),
        pytest.param(b"\4\4\2\0" + bytes(40), "bad reserved", id="index behind a parity's"),
        pytest.param(b"\4\x40\x3f\0" + bytes(40), "bad reserved", id="a parity of 64 datagrams"),
        pytest.param(b"\4\1\0\0" + bytes(40), "bad reserved", id="index 1 of 1"),
        pytest.param(b"\4\0\x40\0" + bytes(40), "bad reserved", id="65 datagrams"),
        pytest.param(b"\4\xff\xff\0" + bytes(40), "bad reserved", id="256 datagrams"),
        pytest.param(b"\4\0\2\1" + bytes(40), "bad reserved", id="fourth byte 1"),
        pytest.param(b"\4\0\2\2" + bytes(40), "bad reserved", id="fourth byte 2"),
        pytest.param(b"\4\3\2\1" + bytes(40), "bad reserved", id="fourth byte 1, index = count"),
        pytest.param(b"\4\0\0\1" + bytes(40), "bad reserved", id="a whole message, fourth byte 1"),
        pytest.param(b"\1\0\2\0" + bytes(144), "bad type", id="a handshake message"),
    ],
)
def test_an_impossible_index_or_count_is_refused(datagram: bytes, reason: str) -> None:
    with pytest.raises(BadPacket) as caught:
        place_of(datagram)
    assert caught.value.reason == reason


@given(
    st.lists(
        st.builds(
            lambda word, rest: b"\4" + bytes(word) + rest, st.tuples(*[st.integers(0, 4)] * 3), st.binary(max_size=40)
        )
    ),
    st.integers(0, 60),
    st.integers(0, 200),
)
def test_arbitrary_reads_raise_nothing_but_bad_packet(parts: list[bytes], size: int, at: int) -> None:
    read = b"".join(parts)
    data, behind = join(read, size, min(at, len(read)))
    assert (len(data) >= 32 and behind <= len(read)) or (data == b"" and behind == min(at, len(read)))
    for part in parts:
        try:
            index, count = place_of(part)
        except BadPacket:
            continue
        assert 0 <= index <= count <= 64
        assert index < count or count > 1
        assert part[3] == 0


@settings(deadline=None)
@given(st.integers(17, message.LARGEST), st.integers(17, message.LARGEST))
def test_an_unexpected_read_has_room_whatever_size_was_expected(former: int, expected: int) -> None:
    reader = BurstReader(memoryview(bytearray(message.LARGEST)))
    reader.expect(former)
    reader.expect(expected)
    assert sum(map(len, reader.buffers)) >= message.LARGEST
    assert len(reader.buffers) <= 2 * 64
