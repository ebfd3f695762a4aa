"""Batches of datagrams read by one call, and whole bursts found in place."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.test_burst import datagrams, sealed
from vpntun.wire.datagram_batch import ORIGIN_SIZE, SLOTS, DatagramBatch

SIZE = 100
HERE, THERE = b"here".ljust(ORIGIN_SIZE, b"\0"), b"there".ljust(ORIGIN_SIZE, b"\0")

Datagram = tuple[bytes, bytes]


def read(batch: DatagramBatch, *waiting: Datagram) -> list[Datagram]:
    """Fill the slots as the kernel would in one call; return the datagrams that found no slot."""
    slot = first = batch.room()
    lengths = []
    for data, origin in waiting[: SLOTS - first]:
        batch.headers[slot * 16 : slot * 16 + len(data[:16])] = data[:16]
        piece, tail = data[16 : batch.size], data[batch.size : batch.size + batch.tail]
        begin = 16 + slot * batch.step
        batch.pieces[begin : begin + len(piece)] = piece
        batch.tails[slot * batch.tail : slot * batch.tail + len(tail)] = tail
        batch.origins[slot * ORIGIN_SIZE : (slot + 1) * ORIGIN_SIZE] = origin
        lengths.append(len(data))
        slot += 1
    batch.received(lengths)
    return list(waiting[SLOTS - first :])


def got(batch: DatagramBatch) -> list[tuple[bytes, int, bytes]]:
    arrivals = batch.arrivals(lambda origin: (bytes(origin), 0))
    return [(bytes(message), count, origin) for message, _, count, origin, _ in arrivals]


def burst(length: int, counter: int = 7, origin: bytes = HERE) -> list[Datagram]:
    return [(data, origin) for data in datagrams(sealed(length, counter), SIZE)]


def test_bursts_and_whole_messages_in_one_read_come_out_one_after_the_other() -> None:
    batch = DatagramBatch(SIZE)
    first, second, small = sealed(1000, 1), sealed(516, 2), sealed(40, 3)
    read(batch, *burst(1000, 1), (small, HERE), *burst(516, 2), (small, THERE))
    assert got(batch) == [(first, 12, HERE), (small, 1, HERE), (second, 6, HERE), (small, 1, THERE)]


def test_a_burst_waits_in_place_for_its_rest() -> None:
    batch = DatagramBatch(SIZE)
    pieces = burst(1000)
    read(batch, (sealed(40, 3), HERE), *pieces[:5])
    assert [count for _, count, _ in got(batch)] == [1]
    assert got(batch) == []
    read(batch, *pieces[5:])
    assert got(batch) == [(sealed(1000), 12, HERE)]


def test_a_burst_that_misses_a_piece_comes_out_in_pieces() -> None:
    batch = DatagramBatch(SIZE)
    pieces = burst(1000)
    read(batch, *pieces[:4], *pieces[5:], *burst(516, 8))
    came = got(batch)
    assert [message for message, _, _ in came[:-1]] == [data for data, _ in (*pieces[:4], *pieces[5:])]
    assert came[-1] == (sealed(516, 8), 6, HERE)


def test_pieces_out_of_order_or_from_two_sources_or_of_odd_sizes_are_not_joined() -> None:
    a, b, c = burst(16 + 84 * 3)
    for waiting in (
        [b, a, c],
        [a, c, b],
        [a, (b[0], THERE), c],
        [a, (b[0][:-1], HERE), c],
        [a, b, (c[0][:16], HERE)],
        [(a[0] + b"x", HERE), b, c],
        [a, b, (c[0] + b"x", HERE)],
    ):
        batch = DatagramBatch(SIZE)
        read(batch, *waiting)
        assert [(message, origin) for message, _, origin in got(batch)] == waiting
    batch = DatagramBatch(SIZE + 10)
    read(batch, a, b, c)
    assert [count for _, count, _ in got(batch)] == [1, 1, 1]


def test_datagrams_of_any_length_come_out_whole_whatever_the_size_of_the_slots() -> None:
    batch = DatagramBatch(SIZE)
    longest, long, short = bytes([4] * 65535), sealed(SIZE + 1, 3), sealed(40, 4)
    for _ in range(3):
        read(batch, (longest, HERE), (short, HERE), (long, THERE), *burst(516, 8), (longest, THERE))
        assert got(batch) == [
            (longest, 1, HERE),
            (short, 1, HERE),
            (long, 1, THERE),
            (sealed(516, 8), 6, HERE),
            (longest, 1, THERE),
        ]


def forged(size: int, rest: int, last: int, *, fourth: int = 0) -> list[Datagram]:
    """Pieces that claim to belong to one record, the last of `last` bytes."""
    header = sealed(32)[4:16]
    sizes = [size] * rest + [last]
    return [(bytes((4, index, rest, fourth)) + header + bytes(each - 16), HERE) for index, each in enumerate(sizes)]


def test_pieces_of_more_than_the_longest_message_are_never_put_together() -> None:
    waiting = forged(1472, 63, 1472)
    batch = DatagramBatch(1472)
    read(batch, *waiting)
    assert got(batch) == [(data, 1, HERE) for data, _ in waiting]


@settings(deadline=None)
@given(st.sampled_from((1024, 1200, 1472, 8972, 9216)), st.integers(0, 8), st.integers(17, 1024))
def test_nothing_longer_than_the_longest_message_comes_out(size: int, more: int, last: int) -> None:
    rest = min(63, 65535 // (size - 16) - 4 + more)
    waiting = forged(size, rest, last)
    batch = DatagramBatch(size)
    read(batch, *waiting)
    came = got(batch)
    assert max(len(message) for message, _, _ in came) <= 65535
    assert (len(came) == 1) == (rest * (size - 16) + last <= 65535)


def test_pieces_of_65_datagrams_or_whose_fourth_byte_is_not_zero_come_out_as_they_are() -> None:
    for waiting in (forged(SIZE, 64, SIZE), *(forged(SIZE, 3, 50, fourth=fourth) for fourth in (1, 2, 0x80, 0xFF))):
        batch = DatagramBatch(SIZE)
        read(batch, *waiting)
        assert got(batch) == [(data, 1, HERE) for data, _ in waiting]


def test_a_datagram_shorter_than_a_header_comes_out_as_it_is() -> None:
    batch = DatagramBatch(SIZE)
    read(batch, (b"", HERE), (b"\4\0\1", HERE), (sealed(40), HERE))
    assert [message for message, _, _ in got(batch)] == [b"", b"\4\0\1", sealed(40)]


@settings(max_examples=60)
@given(st.lists(st.integers(32, 5000), min_size=1, max_size=60), st.integers(0, 1000))
def test_however_reads_cut_a_stream_in_order_every_message_comes_out_whole(lengths: list[int], seed: int) -> None:
    rng = random.Random(seed)
    batch = DatagramBatch(SIZE)
    stream = [each for counter, length in enumerate(lengths) for each in burst(length, counter)]
    came: list[bytes] = []
    while stream:
        taken = rng.randrange(1, 300)
        stream = read(batch, *stream[:taken]) + stream[taken:]
        came += [message for message, _, _ in got(batch)]
    assert came == [sealed(length, counter) for counter, length in enumerate(lengths)]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=120),
            st.builds(lambda b: b"\4\0" + b, st.binary(max_size=118)),
            st.builds(
                lambda index, rest, fourth, size: bytes((4, index, rest, fourth)) + bytes(size),
                st.integers(0, 3),
                st.sampled_from((0, 1, 2, 62, 63, 64, 255)),
                st.sampled_from((0, 0, 0, 1)),
                st.sampled_from((0, 12, 50, 95, 96)),
            ),
        ),
        max_size=300,
    )
)
def test_arbitrary_datagrams_raise_nothing_and_none_is_lost(waiting: list[bytes]) -> None:
    batch = DatagramBatch(SIZE)
    rest: list[Datagram] = [(data, HERE) for data in waiting]
    total = 0
    while rest:
        rest = read(batch, *rest)
        total += sum(count for _, count, _ in got(batch))
    assert total <= len(waiting) < total + 64 + 1
