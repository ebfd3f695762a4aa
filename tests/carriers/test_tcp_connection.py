"""The TCP carrier on real loopback connections: strangers get little, frames stay whole, nothing blocks the loop."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carriers.house import House, a_peer, frame
from tests.datapath.ends import CAROL
from tests.machine import HandLoop
from vpntun.errors import BadPacket

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What comes in


@pytest.mark.parametrize("length", [0, 1, 31, 257, 1500, 65535])
def test_a_length_that_no_stranger_may_send_closes_the_connection_unanswered(house: House, length: int) -> None:
    guest = house.guest()
    guest.outside.sendall(length.to_bytes(2, "big") + bytes(40))
    house.loop.until(lambda: guest.closed)
    assert guest.messages == []
    assert guest.reasons == ["bad frame length"]
    assert guest.sees_the_end()


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_length_below_the_smallest_message_closes_a_friends_connection_too(house: House, length: int) -> None:
    guest = house.guest(friend=True)
    guest.outside.sendall(length.to_bytes(2, "big") + bytes(40))
    house.loop.until(lambda: guest.closed)
    assert guest.reasons == ["bad frame length"]


def test_a_stranger_may_send_256_bytes_and_a_friend_as_many_as_a_length_can_say(house: House) -> None:
    guest = house.guest()
    guest.says(b"i" * 32, b"j" * 256)
    house.loop.until(lambda: len(guest.messages) == 2)
    guest.connection.belongs_to(a_peer())
    guest.says(b"k" * 65535, b"l" * 257)
    house.loop.until(lambda: len(guest.messages) == 4)
    assert [len(message) for message in guest.messages] == [32, 256, 65535, 257]
    assert guest.closed == 0


def test_nothing_is_allocated_for_a_length_that_a_stranger_announces(house: House) -> None:
    guests = [house.guest() for _ in range(10)]
    house.loop.poll()
    tracemalloc.start()
    try:
        for guest in guests:
            guest.outside.sendall(b"\xff\xff" + bytes(100))
        house.loop.until(lambda: all(guest.closed for guest in guests))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 65535


def test_a_stranger_costs_a_few_kilobytes(house: House) -> None:
    outside = [house.call() for _ in range(10)]
    tracemalloc.start()
    try:
        connections = [house.accept() for _ in outside]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert None not in connections
    assert size < 10 * 8192
    for connection in connections:
        assert connection is not None
        house.loop.watch(connection.fileno(), lambda: None)
        connection.close()


def test_the_parse_is_the_same_one_byte_at_a_time(house: House) -> None:
    guest = house.guest()
    messages = [b"a" * 32, b"b" * 148]
    for byte in b"".join(map(frame, messages)):
        guest.outside.sendall(bytes([byte]))
        house.loop.poll(1.0)
    house.loop.until(lambda: len(guest.messages) == 2)
    assert guest.messages == messages


def test_a_length_split_over_two_reads_is_one_length(house: House) -> None:
    guest = house.guest()
    whole = frame(b"a" * 148)
    for part in (whole[:1], whole[1:100], whole[100:]):
        assert guest.messages == []
        guest.outside.sendall(part)
        house.loop.poll(1.0)
    house.loop.until(lambda: guest.messages)
    assert guest.messages == [b"a" * 148]


@pytest.mark.parametrize("friend", [False, True])
def test_a_hundred_frames_in_one_write_are_a_hundred_messages(house: House, friend: bool) -> None:
    guest = house.guest(friend=friend)
    messages = [bytes([number]) * (100 + number) for number in range(100)]
    guest.says(*messages)
    house.loop.until(lambda: len(guest.messages) >= 100)
    assert guest.messages == messages


@pytest.mark.parametrize("part", [b"", b"\x00", b"\x00\x40", b"\x00\x40" + bytes(63)])
def test_the_end_in_the_middle_of_a_frame_closes_and_gives_no_message(house: House, part: bytes) -> None:
    guest = house.guest()
    guest.says(b"whole" * 10)
    guest.outside.sendall(part)
    guest.outside.shutdown(socket.SHUT_WR)
    house.loop.until(lambda: guest.closed)
    assert guest.messages == [b"whole" * 10]
    assert guest.reasons == []


def test_after_a_framing_error_nothing_more_is_parsed(house: House) -> None:
    guest = house.guest(friend=True)
    guest.outside.sendall(frame(b"good" * 10) + b"\x00\x05" + frame(b"evil" * 10) * 50)
    house.loop.until(lambda: guest.closed)
    with suppress(ConnectionError):
        guest.says(b"late" * 10)
    house.loop.settle()
    assert guest.messages == [b"good" * 10]
    assert guest.reasons == ["bad frame length"]
    assert guest.closed == 1


def test_a_reset_closes_once_and_raises_nothing(house: House) -> None:
    guest = house.guest()
    guest.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    guest.outside.close()
    house.loop.until(lambda: guest.closed)
    guest.connection.close()
    assert guest.closed == 1
    assert guest.reasons == []


def test_a_flood_on_one_connection_leaves_room_for_another(house: House) -> None:
    flooding, quiet = house.guest(friend=True), house.guest(friend=True)
    flooding.outside.setblocking(False)
    flood = frame(bytes(1400)) * 500

    def pour() -> bool:
        with suppress(BlockingIOError):
            while True:
                flooding.outside.send(flood)
        return True

    pour()
    quiet.says(b"me too" * 10)
    turns = 0
    while not quiet.messages:
        pour()
        house.loop.poll()
        turns += 1
        assert turns < 100


# Whose it is


def test_a_connection_of_one_peer_refuses_another(house: House) -> None:
    guest = house.guest()
    bob, carol = a_peer(), a_peer(CAROL.public)
    guest.connection.belongs_to(bob)
    guest.connection.belongs_to(bob)
    with pytest.raises(BadPacket, match="another peer's connection"):
        guest.connection.belongs_to(carol)
    assert guest.connection.peer is bob


def test_a_replaced_connection_still_gives_what_comes_for_two_seconds(house: House) -> None:
    guest = house.guest(friend=True)
    guest.connection.hang_up_later()
    house.loop.pass_time(1.9)
    guest.says(b"late" * 10)
    house.loop.until(lambda: guest.messages)
    assert guest.closed == 0
    house.loop.pass_time(0.2)
    assert guest.closed == 1
    assert guest.sees_the_end()


def test_hanging_up_on_what_has_closed_is_nothing(house: House) -> None:
    guest = house.guest(friend=True)
    guest.connection.hang_up_later()
    guest.connection.hang_up_later()
    guest.connection.close()
    house.loop.pass_time(5)
    assert guest.closed == 1


# Whatever comes


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=400),
            st.builds(lambda size, byte: frame(bytes([byte]) * size), st.integers(32, 256), st.integers(0, 255)),
        ),
        max_size=8,
    ),
    friend=st.booleans(),
)
def test_no_stream_of_bytes_raises_or_yields_a_message_of_a_wrong_size(chunks: list[bytes], friend: bool) -> None:
    loop = HandLoop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        guest = House(loop, stack).guest(friend=friend)
        for chunk in chunks:
            with suppress(ConnectionError):
                guest.outside.sendall(chunk)
            loop.poll()
        with suppress(OSError):
            guest.outside.shutdown(socket.SHUT_WR)
        loop.until(lambda: guest.closed)
        assert guest.closed == 1
        assert guest.messages == parsed(b"".join(chunks), 65535 if friend else 256)
        assert guest.sees_the_end()


def parsed(stream: bytes, largest: int) -> list[bytes]:
    """What a simple reader makes of the whole stream."""
    messages = []
    while len(stream) >= 2:
        size = int.from_bytes(stream[:2], "big")
        if not 32 <= size <= largest or len(stream) < 2 + size:
            break
        messages.append(stream[2 : 2 + size])
        stream = stream[2 + size :]
    return messages
