"""TCP carrier on real loopback connections: strangers get little, frames stay whole, nothing blocks the loop."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from contextlib import ExitStack, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carriers.tcp_server import TcpServer, a_peer, frame
from tests.datapath.ends import CAROL
from tests.machine import HandLoop
from vpntun.errors import BadPacket

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

# What comes in


@pytest.mark.parametrize("length", [0, 1, 31, 257, 1500, 65535])
def test_a_length_that_no_stranger_may_send_closes_the_connection_without_a_reply(
    server: TcpServer, length: int
) -> None:
    client = server.client()
    client.outside.sendall(length.to_bytes(2, "big") + bytes(40))
    server.loop.until(lambda: client.closed)
    assert client.messages == []
    assert client.reasons == ["bad frame length"]
    assert client.sees_close()


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_length_below_the_smallest_message_closes_an_authenticated_connection_too(
    server: TcpServer, length: int
) -> None:
    client = server.client(authenticated=True)
    client.outside.sendall(length.to_bytes(2, "big") + bytes(40))
    server.loop.until(lambda: client.closed)
    assert client.reasons == ["bad frame length"]


def test_a_stranger_may_send_256_bytes_and_an_authenticated_peer_65535(server: TcpServer) -> None:
    client = server.client()
    client.send(b"i" * 32, b"j" * 256)
    server.loop.until(lambda: len(client.messages) == 2)
    client.connection.belongs_to(a_peer())
    client.send(b"k" * 65535, b"l" * 257)
    server.loop.until(lambda: len(client.messages) == 4)
    assert [len(message) for message in client.messages] == [32, 256, 65535, 257]
    assert client.closed == 0


def test_nothing_is_allocated_for_a_length_that_a_stranger_announces(server: TcpServer) -> None:
    clients = [server.client() for _ in range(10)]
    server.loop.poll()
    tracemalloc.start()
    try:
        for client in clients:
            client.outside.sendall(b"\xff\xff" + bytes(100))
        server.loop.until(lambda: all(client.closed for client in clients))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 65535


def test_a_stranger_costs_a_few_kilobytes(server: TcpServer) -> None:
    outside = [server.call() for _ in range(10)]
    tracemalloc.start()
    try:
        connections = [server.accept() for _ in outside]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert None not in connections
    assert size < 10 * 8192
    for connection in connections:
        assert connection is not None
        server.loop.watch(connection.fileno(), lambda: None)
        connection.close()


def test_the_parse_is_the_same_one_byte_at_a_time(server: TcpServer) -> None:
    client = server.client()
    messages = [b"a" * 32, b"b" * 148]
    for byte in b"".join(map(frame, messages)):
        client.outside.sendall(bytes([byte]))
        server.loop.poll(1.0)
    server.loop.until(lambda: len(client.messages) == 2)
    assert client.messages == messages


def test_a_length_split_over_two_reads_is_one_length(server: TcpServer) -> None:
    client = server.client()
    whole = frame(b"a" * 148)
    for part in (whole[:1], whole[1:100], whole[100:]):
        assert client.messages == []
        client.outside.sendall(part)
        server.loop.poll(1.0)
    server.loop.until(lambda: client.messages)
    assert client.messages == [b"a" * 148]


@pytest.mark.parametrize("authenticated", [False, True])
def test_a_hundred_frames_in_one_write_are_a_hundred_messages(server: TcpServer, authenticated: bool) -> None:
    client = server.client(authenticated=authenticated)
    messages = [bytes([number]) * (100 + number) for number in range(100)]
    client.send(*messages)
    server.loop.until(lambda: len(client.messages) >= 100)
    assert client.messages == messages


@pytest.mark.parametrize("part", [b"", b"\x00", b"\x00\x40", b"\x00\x40" + bytes(63)])
def test_an_end_of_stream_inside_a_frame_closes_the_connection_and_yields_no_message(
    server: TcpServer, part: bytes
) -> None:
    client = server.client()
    client.send(b"whole" * 10)
    client.outside.sendall(part)
    client.outside.shutdown(socket.SHUT_WR)
    server.loop.until(lambda: client.closed)
    assert client.messages == [b"whole" * 10]
    assert client.reasons == []


def test_after_a_framing_error_nothing_more_is_parsed(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.outside.sendall(frame(b"good" * 10) + b"\x00\x05" + frame(b"evil" * 10) * 50)
    server.loop.until(lambda: client.closed)
    with suppress(ConnectionError):
        client.send(b"late" * 10)
    server.loop.settle()
    assert client.messages == [b"good" * 10]
    assert client.reasons == ["bad frame length"]
    assert client.closed == 1


def test_a_reset_closes_once_and_raises_nothing(server: TcpServer) -> None:
    client = server.client()
    client.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.outside.close()
    server.loop.until(lambda: client.closed)
    client.connection.close()
    assert client.closed == 1
    assert client.reasons == []


def test_a_flood_on_one_connection_leaves_room_for_another(server: TcpServer) -> None:
    flooding, quiet = server.client(authenticated=True), server.client(authenticated=True)
    flooding.outside.setblocking(False)
    flood = frame(bytes(1400)) * 500

    def pour() -> bool:
        with suppress(BlockingIOError):
            while True:
                flooding.outside.send(flood)
        return True

    pour()
    quiet.send(b"me too" * 10)
    turns = 0
    while not quiet.messages:
        pour()
        server.loop.poll()
        turns += 1
        assert turns < 100


# Whose it is


def test_a_connection_of_one_peer_refuses_another(server: TcpServer) -> None:
    client = server.client()
    bob, carol = a_peer(), a_peer(CAROL.public)
    client.connection.belongs_to(bob)
    client.connection.belongs_to(bob)
    with pytest.raises(BadPacket, match="another peer's connection"):
        client.connection.belongs_to(carol)
    assert client.connection.peer is bob


def test_a_replaced_connection_still_receives_for_two_seconds(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.connection.hang_up_later()
    server.loop.pass_time(1.9)
    client.send(b"late" * 10)
    server.loop.until(lambda: client.messages)
    assert client.closed == 0
    server.loop.pass_time(0.2)
    assert client.closed == 1
    assert client.sees_close()


def test_a_connection_has_the_addresses_that_cookies_depend_on_until_it_is_closed(server: TcpServer) -> None:
    client = server.client()
    connection = client.connection
    host, port, *_ = client.outside.getsockname()
    assert connection.origin == socket.inet_aton(host) + port.to_bytes(2, "big")
    assert connection.via == client.outside.getpeername()
    assert connection.is_open
    connection.close()
    assert not connection.is_open


def test_a_closed_connection_that_is_hung_up_stays_closed_once(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.connection.hang_up_later()
    client.connection.hang_up_later()
    client.connection.close()
    server.loop.pass_time(5)
    assert client.closed == 1


# Whatever comes


@settings(max_examples=60)
@given(
    chunks=st.lists(
        st.one_of(
            st.binary(max_size=400),
            st.builds(lambda size, byte: frame(bytes([byte]) * size), st.integers(32, 256), st.integers(0, 255)),
        ),
        max_size=8,
    ),
    authenticated=st.booleans(),
)
def test_no_stream_of_bytes_raises_or_yields_a_message_of_a_wrong_size(
    chunks: list[bytes], authenticated: bool
) -> None:
    loop = HandLoop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        client = TcpServer(loop, stack).client(authenticated=authenticated)
        for chunk in chunks:
            with suppress(ConnectionError):
                client.outside.sendall(chunk)
            loop.poll()
        with suppress(OSError):
            client.outside.shutdown(socket.SHUT_WR)
        loop.until(lambda: client.closed)
        assert client.closed == 1
        assert client.messages == parsed(b"".join(chunks), 65535 if authenticated else 256)
        assert client.sees_close()


def parsed(stream: bytes, largest: int) -> list[bytes]:
    """Return the messages that a simple reader finds in the whole stream."""
    messages = []
    while len(stream) >= 2:
        size = int.from_bytes(stream[:2], "big")
        if not 32 <= size <= largest or len(stream) < 2 + size:
            break
        messages.append(stream[2 : 2 + size])
        stream = stream[2 + size :]
    return messages
