"""The length prefix over TCP: any cut of the stream parses alike, a bad length ends it for good."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer
from vpntun.wire.stream_framing import (
    LARGEST_BEFORE_AUTHENTICATION,
    LARGEST_THAT_FITS,
    FrameReader,
    SharedBuffer,
    prefix,
)


def framed(*messages: bytes) -> bytes:
    return b"".join(prefix(len(message)) + message for message in messages)


def new_reader(largest: int) -> FrameReader:
    """A reader with a buffer of its own."""
    return FrameReader(largest, SharedBuffer())


def receive(reader: FrameReader, stream: bytes) -> list[bytes]:
    """Feed the stream, read by read, as much as fits each time, and collect the messages."""
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
    assert receive(new_reader(256), framed(b"a" * 32)) == [b"a" * 32]


def test_one_byte_at_a_time_gives_the_same_parse() -> None:
    messages = [b"a" * 32, b"b" * 148, b"c" * 256, b"d" * 33]
    reader = new_reader(256)
    got = [message for byte in framed(*messages) for message in receive(reader, bytes([byte]))]
    assert got == messages


def test_a_prefix_may_be_split_over_two_reads() -> None:
    stream = framed(b"a" * 40, b"b" * 50)
    reader = new_reader(256)
    assert receive(reader, stream[:43]) == [b"a" * 40]
    assert receive(reader, stream[43:]) == [b"b" * 50]


def test_a_hundred_frames_come_out_of_one_read() -> None:
    messages = distinct(100, 1452)
    reader = new_reader(65535)
    stream = framed(*messages)
    assert len(reader.writable()) >= len(stream)
    assert receive(reader, stream) == messages


def test_the_end_of_the_stream_in_mid_frame_yields_only_whole_frames() -> None:
    assert receive(new_reader(256), framed(b"a" * 32, b"b" * 100)[:-1]) == [b"a" * 32]


@pytest.mark.parametrize("length", [0, 1, 31, 257, 2000, 65535])
def test_a_length_out_of_bounds_breaks_the_stream_for_good(length: int) -> None:
    reader = new_reader(LARGEST_BEFORE_AUTHENTICATION)
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
    assert receive(new_reader(256), framed(*messages)) == messages
    messages = [b"a" * 32, b"b" * 65535, b"c" * 65535]
    assert receive(new_reader(65535), framed(*messages)) == messages


def test_an_announced_length_allocates_nothing() -> None:
    buffer = SharedBuffer()
    reader, other = FrameReader(65535, buffer), FrameReader(65535, buffer)
    tracemalloc.start()
    try:
        assert receive(reader, prefix(65535)) == []
        other.writable()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4096


def test_little_is_read_at_once_before_authentication() -> None:
    reader = new_reader(LARGEST_BEFORE_AUTHENTICATION)
    assert len(reader.writable()) < 2048
    receive(reader, framed(b"a" * 256)[:-1])
    assert len(reader.writable()) < 2048


HEADER = bytes([4, *range(1, 16)])


def stranger_with_a_session() -> FrameReader:
    """A reader before authentication; one header fits a live session."""
    return FrameReader(LARGEST_BEFORE_AUTHENTICATION, SharedBuffer(), fits_session=lambda header: header == HEADER)


@pytest.mark.parametrize("size", [257, 1452, LARGEST_THAT_FITS])
@pytest.mark.parametrize("step", [1, 17, 1000, 10**6])
def test_a_longer_frame_passes_before_authentication_if_its_header_fits_a_session(size: int, step: int) -> None:
    message = HEADER.ljust(size, b".")
    stream = framed(b"a" * 148, message, b"b" * 32, message)
    reader = stranger_with_a_session()
    got = [each for at in range(0, len(stream), step) for each in receive(reader, stream[at : at + step])]
    assert got == [b"a" * 148, message, b"b" * 32, message]


@pytest.mark.parametrize("start", [HEADER[:15] + b"?", HEADER[:1] + bytes(15)])
def test_a_longer_frame_whose_header_fits_no_session_breaks_the_stream_as_soon_as_the_header_is_there(
    start: bytes,
) -> None:
    reader = stranger_with_a_session()
    assert receive(reader, prefix(1452) + start[:15]) == []
    with pytest.raises(BadPacket, match="bad frame length"):
        receive(reader, start[15:])


@pytest.mark.parametrize("length", [257, 1452, LARGEST_THAT_FITS])
def test_a_longer_frame_that_is_no_data_message_breaks_the_stream_at_its_first_byte(length: int) -> None:
    reader = stranger_with_a_session()
    assert receive(reader, prefix(length)) == []
    with pytest.raises(BadPacket, match="bad frame length"):
        receive(reader, b"\1")


def test_the_header_of_a_longer_frame_is_checked_once_for_its_session_may_end_before_the_frame() -> None:
    headers: list[bytes] = []

    def is_first(header: Buffer) -> bool:
        headers.append(bytes(header))
        return len(headers) == 1

    reader = FrameReader(LARGEST_BEFORE_AUTHENTICATION, SharedBuffer(), fits_session=is_first)
    message = HEADER.ljust(9000, b".")
    stream = framed(message)
    got = [each for at in range(0, len(stream), 700) for each in receive(reader, stream[at : at + 700])]
    assert got == [message]
    assert headers == [HEADER]
    with pytest.raises(BadPacket, match="bad frame length"):
        receive(reader, stream)


def test_a_frame_longer_than_any_that_fits_breaks_the_stream_whatever_its_header() -> None:
    with pytest.raises(BadPacket, match="bad frame length"):
        receive(stranger_with_a_session(), prefix(LARGEST_THAT_FITS + 1) + HEADER)


def test_the_room_grows_only_for_a_header_that_fits_and_only_by_its_frame() -> None:
    reader = stranger_with_a_session()
    receive(reader, prefix(LARGEST_THAT_FITS) + HEADER[:15])
    assert len(reader.writable()) < 2048
    receive(reader, HEADER[15:])
    assert len(reader.writable()) == LARGEST_THAT_FITS - len(HEADER)


def test_strangers_with_headers_that_fit_make_this_end_keep_no_more_than_their_frames() -> None:
    buffer = SharedBuffer()
    tracemalloc.start()
    try:
        readers = [
            FrameReader(LARGEST_BEFORE_AUTHENTICATION, buffer, fits_session=lambda header: True) for _ in range(256)
        ]
        for reader in readers:
            receive(reader, framed(HEADER.ljust(LARGEST_THAT_FITS, b"."))[:-1])
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 256 * (LARGEST_THAT_FITS + 500)


def test_the_room_for_authenticated_frames_is_256_kib() -> None:
    reader = new_reader(256)
    reader.admit(65535)
    assert len(reader.writable()) == 256 * 1024


def test_an_admit_between_two_frames_of_one_read_lets_the_second_be_long() -> None:
    handshake, record = b"h" * 148, bytes(range(256)) * 255
    stream = framed(handshake, record, b"z" * 32)
    reader = new_reader(256)
    first = len(reader.writable())
    reader.writable()[:first] = stream[:first]
    reader.filled(first)
    got = []
    for frame in reader.frames():
        reader.admit(65535)
        got.append(bytes(frame))
    assert got == [handshake]
    assert receive(reader, stream[first:]) == [record, b"z" * 32]


def test_an_admit_inside_the_loop_counts_for_frames_already_read() -> None:
    stream = framed(b"h" * 148, b"r" * 300, b"s" * 400)
    reader = new_reader(256)
    reader.writable()[: len(stream)] = stream
    reader.filled(len(stream))
    got = []
    for frame in reader.frames():
        got.append(bytes(frame))
        reader.admit(65535)
    assert got == [b"h" * 148, b"r" * 300, b"s" * 400]


@given(
    st.lists(st.binary(min_size=32, max_size=2000), max_size=20),
    st.lists(st.integers(1, 5000), min_size=1, max_size=30),
    st.sampled_from([2000, 65535]),
)
def test_the_parse_does_not_depend_on_where_the_stream_is_cut(
    messages: list[bytes], cuts: list[int], largest: int
) -> None:
    reader = new_reader(largest)
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
    reader = new_reader(largest)
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


# Several readers of one buffer


def test_the_rest_of_a_frame_outlives_the_reads_of_another_reader() -> None:
    buffer = SharedBuffer()
    one, other = FrameReader(65535, buffer), FrameReader(65535, buffer)
    long, longer = b"a" * 50000, b"b" * 60000
    assert receive(one, framed(long)[:-1]) == []
    assert receive(other, framed(longer)[:-1]) == []
    assert receive(one, framed(long)[-1:]) == [long]
    assert receive(other, framed(longer)[-1:]) == [longer]


def test_a_reader_without_competition_finds_the_rest_in_place() -> None:
    buffer = SharedBuffer()
    reader = FrameReader(65535, buffer)
    begun = prefix(60000) + bytes(50000)
    tracemalloc.start()
    try:
        reader.writable()[: len(begun)] = begun
        reader.filled(len(begun))
        assert list(reader.frames()) == []
        reader.writable()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4096


def test_a_thousand_readers_take_only_the_memory_of_their_unfinished_frames() -> None:
    buffer = SharedBuffer()
    tracemalloc.start()
    try:
        readers = [FrameReader(65535, buffer) for _ in range(1000)]
        for reader in readers:
            receive(reader, framed(b"a" * 40000))
        between_frames, _ = tracemalloc.get_traced_memory()
        for reader in readers:
            receive(reader, prefix(65535) + bytes(5000))
        unfinished, _ = tracemalloc.get_traced_memory()
        for reader in readers:
            receive(reader, bytes(65535 - 5000))
        finished, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert between_frames < 1000 * 512
    assert unfinished < 1000 * (5000 + 512)
    assert finished < 1000 * 512


def test_a_closed_reader_keeps_nothing_and_disturbs_no_other() -> None:
    buffer = SharedBuffer()
    one, other = FrameReader(65535, buffer), FrameReader(65535, buffer)
    tracemalloc.start()
    try:
        receive(one, prefix(60000) + bytes(50000))
        receive(other, prefix(60000) + bytes(50000))
        one.close()
        other.close()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert left < 4096
    third = FrameReader(65535, buffer)
    assert receive(third, framed(b"c" * 100)) == [b"c" * 100]


def test_no_frame_comes_after_the_close() -> None:
    reader = new_reader(256)
    messages = distinct(3, 60)
    stream = framed(*messages)
    reader.writable()[: len(stream)] = stream
    reader.filled(len(stream))
    got = []
    for frame in reader.frames():
        got.append(bytes(frame))
        reader.close()
    assert got == messages[:1]


Streams = st.lists(
    st.tuples(
        st.lists(st.one_of(st.integers(32, 300), st.just(65535)), max_size=6),
        st.lists(st.one_of(st.integers(0, 400), st.integers(0, 90000)), min_size=1, max_size=8),
    ),
    min_size=2,
    max_size=5,
)


@given(Streams, st.lists(st.integers(0, 4), max_size=60), st.sets(st.integers(0, 4)))
def test_readers_of_one_buffer_parse_as_if_each_had_its_own(
    streams: list[tuple[list[int], list[int]]], turns: list[int], closed: set[int]
) -> None:
    """Each stream is given by the sizes of its messages and of the reads in which it arrives."""
    buffer = SharedBuffer()
    readers = [FrameReader(65535, buffer) for _ in streams]
    sent = [
        [bytes([number, index]).ljust(size, b"%d" % index) for index, size in enumerate(sizes)]
        for number, (sizes, _) in enumerate(streams)
    ]
    left = [framed(*messages) for messages in sent]
    cuts = [itertools.cycle(cuts) for _, cuts in streams]
    got: list[list[bytes]] = [[] for _ in streams]

    def read(number: int, count: int) -> None:
        """Do one read; even an empty one borrows the buffer, as a socket without bytes does."""
        readers[number].writable()
        got[number] += receive(readers[number], left[number][:count])
        left[number] = left[number][count:]

    for turn in turns:
        if turn < len(streams):
            read(turn, next(cuts[turn]))
    for number in closed & set(range(len(streams))):
        readers[number].close()
    going_on = set(range(len(streams))) - closed
    while any(left[number] for number in going_on):
        for number in going_on:
            read(number, next(cuts[number]) + 5000)
    for number, messages in enumerate(sent):
        assert got[number] == (messages if number in going_on else messages[: len(got[number])])
