"""The length prefix over TCP: the same parse however the stream is cut, and no way back from a bad length."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire.framing import LARGEST_BEFORE_AUTHENTICATION, FrameReader, prefix


def framed(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message)) + message for message in messages)


def receive(reader: FrameReader, stream: bytes) -> list[bytes]:
    """Feed what fits, read by read, and collect what comes out."""
    messages = []
    while stream:
        room = reader.writable()
        assert len(room) > 0
        count = min(len(room), len(stream))
        room[:count] = stream[:count]
        reader.filled(count)
        stream = stream[count:]
        messages += [bytes(frame) for frame in reader.frames()]
    return messages


def distinct(count: int, size: int) -> list[bytes]:
    return [index.to_bytes(4, "big").ljust(size, b".") for index in range(count)]


def test_the_prefix_is_two_bytes_big_endian() -> None:
    assert prefix(32) == b"\x00\x20"
    assert prefix(65535) == b"\xff\xff"


def test_a_frame_comes_out_without_its_prefix() -> None:
    assert receive(FrameReader(256), framed(b"a" * 32)) == [b"a" * 32]


def test_one_byte_at_a_time_gives_the_same_parse() -> None:
    messages = [b"a" * 32, b"b" * 148, b"c" * 256, b"d" * 33]
    reader = FrameReader(256)
    got = [message for byte in framed(*messages) for message in receive(reader, bytes([byte]))]
    assert got == messages


def test_a_prefix_may_be_split_over_two_reads() -> None:
    stream = framed(b"a" * 40, b"b" * 50)
    reader = FrameReader(256)
    assert receive(reader, stream[:43]) == [b"a" * 40]
    assert receive(reader, stream[43:]) == [b"b" * 50]


def test_a_hundred_frames_come_out_of_one_read() -> None:
    messages = distinct(100, 1452)
    reader = FrameReader(65535)
    stream = framed(*messages)
    assert len(reader.writable()) >= len(stream)
    assert receive(reader, stream) == messages


def test_the_end_of_the_stream_in_mid_frame_yields_only_whole_frames() -> None:
    assert receive(FrameReader(256), framed(b"a" * 32, b"b" * 100)[:-1]) == [b"a" * 32]


@pytest.mark.parametrize("length", [0, 1, 31, 257, 2000, 65535])
def test_a_length_out_of_bounds_breaks_the_stream_for_ever(length: int) -> None:
    reader = FrameReader(LARGEST_BEFORE_AUTHENTICATION)
    good = framed(b"a" * 32)
    stream = good + prefix(length) + good
    reader.writable()[: len(stream)] = stream
    reader.filled(len(stream))
    frames = reader.frames()
    assert bytes(next(frames)) == b"a" * 32
    with pytest.raises(BadPacket, match="bad frame length"):
        next(frames)
    for _ in range(100):
        with pytest.raises(BadPacket, match="bad frame length"):
            receive(reader, good)


def test_a_frame_of_32_bytes_and_one_of_the_largest_pass() -> None:
    messages = [b"a" * 32, b"b" * 256]
    assert receive(FrameReader(256), framed(*messages)) == messages
    messages = [b"a" * 32, b"b" * 65535, b"c" * 65535]
    assert receive(FrameReader(65535), framed(*messages)) == messages


def test_an_announced_length_allocates_nothing() -> None:
    reader = FrameReader(65535)
    before = len(reader.writable())
    assert receive(reader, prefix(65535)) == []
    assert len(reader.writable()) == before - 2
    assert len(FrameReader(256).writable()) < 2048


def test_the_room_for_authenticated_frames_is_256_kib() -> None:
    reader = FrameReader(256)
    reader.admit(65535)
    assert len(reader.writable()) == 256 * 1024


def test_an_admit_between_two_frames_of_one_read_lets_the_second_be_long() -> None:
    handshake, record = b"h" * 148, bytes(range(256)) * 255
    stream = framed(handshake, record, b"z" * 32)
    reader = FrameReader(256)
    first = len(reader.writable())
    reader.writable()[:first] = stream[:first]
    reader.filled(first)
    got = []
    kept = []
    for frame in reader.frames():
        reader.admit(65535)
        kept.append(frame)
        got.append(bytes(frame))
    assert got == [handshake]
    assert receive(reader, stream[first:]) == [record, b"z" * 32]
    assert bytes(kept[0]) == handshake  # the buffer of before was left alone when a larger one took its place


def test_an_admit_inside_the_loop_counts_for_frames_already_read() -> None:
    stream = framed(b"h" * 148, b"r" * 300, b"s" * 400)
    reader = FrameReader(256)
    reader.writable()[: len(stream)] = stream
    reader.filled(len(stream))
    got = []
    for frame in reader.frames():
        got.append(bytes(frame))
        reader.admit(65535)
    assert got == [b"h" * 148, b"r" * 300, b"s" * 400]


def test_frames_left_by_an_early_end_of_the_loop_come_next_time() -> None:
    messages = distinct(5, 60)
    stream = framed(*messages)
    reader = FrameReader(256)
    reader.writable()[: len(stream)] = stream
    reader.filled(len(stream))
    assert [bytes(frame) for frame in itertools.islice(reader.frames(), 2)] == messages[:2]
    assert reader.writable()
    assert [bytes(frame) for frame in reader.frames()] == messages[2:]


@given(
    st.lists(st.binary(min_size=32, max_size=2000), max_size=20),
    st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    st.sampled_from([2000, 65535]),
)
def test_the_parse_does_not_depend_on_where_the_stream_is_cut(
    messages: list[bytes], cuts: list[int], largest: int
) -> None:
    reader = FrameReader(largest)
    stream = framed(*messages)
    got = []
    for cut in itertools.cycle(cuts):
        if not stream:
            break
        got += receive(reader, stream[:cut])
        stream = stream[cut:]
    assert got == messages


@given(st.lists(st.binary(max_size=1500), max_size=10), st.sampled_from([256, 65535]))
def test_arbitrary_bytes_only_ever_raise_bad_packet(reads: list[bytes], largest: int) -> None:
    reader = FrameReader(largest)
    broken = False
    for read in reads:
        if not read:
            continue
        try:
            for frame in receive(reader, read):
                assert 32 <= len(frame) <= largest
            assert not broken
        except BadPacket as refused:
            assert refused.reason == "bad frame length"
            broken = True
