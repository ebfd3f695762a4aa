"""What the TCP carrier sends on real loopback connections: frames stay whole, and no reader blocks the loop."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from contextlib import suppress
from time import monotonic

import pytest

from tests.carriers.tcp_server import TcpServer, frame
from vpntun.carriers.tcp_connection import MOST_WAITING, TcpConnection
from vpntun.core.endpoint import Outcome
from vpntun.wire.stream_framing import SharedBuffer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def test_a_message_is_sent_behind_its_length(server: TcpServer) -> None:
    client = server.client()
    assert client.connection.send([memoryview(b"a" * 148)]) is Outcome.SENT
    assert client.connection.send_first(b"b" * 32) is Outcome.SENT
    assert client.outside.recv(1000) == b"\x00\x94" + b"a" * 148 + b"\x00\x20" + b"b" * 32


def test_the_largest_message_is_sent_whole(server: TcpServer) -> None:
    client = server.client()
    client.connection.send([memoryview(b"x" * 65535)])
    assert client.receive(1) == [b"x" * 65535]


def test_a_reader_that_stalls_never_blocks_the_loop(server: TcpServer) -> None:
    stalled, other = server.client(authenticated=True), server.client(authenticated=True)
    started = monotonic()
    stalled.stall()
    assert not stalled.connection.ready()
    other.send(b"hello" * 10)
    server.loop.until(lambda: other.messages)
    assert other.connection.send([memoryview(b"hello" * 10)]) is Outcome.SENT
    assert monotonic() - started < 5


def test_a_frame_that_the_kernel_accepted_in_part_is_finished_before_the_next(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    sent = client.stall()
    assert client.ready == 0
    heard = client.receive(len(sent))
    assert heard == sent
    server.loop.until(client.connection.ready)
    assert client.ready >= 1
    assert client.connection.send([memoryview(b"next" * 10)]) is Outcome.SENT
    assert client.receive(1) == [b"next" * 10]


def test_no_memory_is_kept_of_a_frame_that_was_sent(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.outside.setblocking(False)
    message, taken = memoryview(bytes(65535)), bytearray(1 << 20)

    def has_gone() -> bool:
        with suppress(BlockingIOError):
            client.outside.recv_into(taken)
        return client.connection.ready()

    tracemalloc.start()
    try:
        while client.connection.send([message]) is not Outcome.HELD:
            pass
        held, _ = tracemalloc.get_traced_memory()
        server.loop.until(has_gone)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 16384
    assert left < 16384


@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_a_batch_behind_a_frame_under_way_does_not_cut_into_it(server: TcpServer, read_meanwhile: bool) -> None:
    # A superpacket for a plain WireGuard may be sent as two batches, of which the first is held.
    client = server.client(authenticated=True)
    sent = client.stall()
    if read_meanwhile:  # then the socket accepts bytes again before the loop notices
        client.outside.setblocking(False)
        taken = client.outside.recv(1 << 16)
    batch = [bytes([number]) * 1000 for number in range(20)]
    for _ in range(2):
        assert client.connection.send([memoryview(b"".join(batch))], 1000) is Outcome.HELD
    if read_meanwhile:
        assert taken == b"".join(map(frame, sent))[: len(taken)]
        stream = bytearray(taken)
        expected = b"".join(map(frame, [*sent, *batch, *batch]))

        def all_there() -> bool:
            with suppress(BlockingIOError):
                stream.extend(client.outside.recv(1 << 20))
            return len(stream) >= len(expected)

        server.loop.until(all_there)
        assert stream == expected
    else:
        assert client.receive(len(sent) + 40) == [*sent, *batch, *batch]
    server.loop.until(client.connection.ready)


def test_urgent_messages_follow_the_frame_under_way_and_the_newest_are_kept(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    sent = client.stall()
    urgent = [b"urgent %d" % number * 5 for number in range(MOST_WAITING + 2)]
    for message in urgent:
        assert client.connection.send_first(message) is Outcome.HELD
    heard: list[bytes] = []
    client.on_ready = lambda: heard.append(b"data may go")
    assert client.receive(len(sent) + MOST_WAITING) == sent + urgent[2:]
    server.loop.until(lambda: heard)
    assert client.connection.ready()


def test_ready_is_not_reported_while_urgent_messages_wait(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.stall()
    client.connection.send_first(b"urgent" * 10)
    states: list[bool] = []
    client.on_ready = lambda: states.append(client.connection.ready())
    server.loop.settle()
    assert states == []
    client.outside.setblocking(False)

    def drained() -> bool:
        with suppress(BlockingIOError):
            while True:
                client.outside.recv(1 << 20)
        return bool(states)

    server.loop.until(drained)
    assert states[0] is True


def test_a_stalled_reader_takes_little_of_the_kernels_memory(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert sum(map(len, client.stall())) < 4 << 20


def test_a_connection_is_clogged_while_bytes_have_not_left(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    assert not client.connection.clogged()
    client.connection.send([memoryview(b"a" * 100)])
    server.loop.until(lambda: not client.connection.clogged())
    sent = client.stall()
    assert client.connection.clogged()
    client.receive(len(sent) + 1)
    server.loop.until(lambda: not client.connection.clogged())


def test_a_closed_connection_is_clogged_and_accepts_nothing(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.connection.close()
    assert client.connection.clogged()
    assert not client.connection.ready()
    assert client.connection.send([memoryview(b"a" * 100)]) is Outcome.UNDELIVERABLE
    assert client.connection.send_first(b"a" * 100) is Outcome.UNDELIVERABLE
    client.connection.flush()
    assert client.closed == 1


def test_a_reset_noticed_while_sending_closes_once(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.outside.close()
    until = monotonic() + 5
    while client.connection.send([memoryview(b"a" * 100)]) is not Outcome.UNDELIVERABLE:
        assert monotonic() < until
    server.loop.settle()
    assert client.closed == 1


def test_a_reset_in_the_middle_of_a_frame_closes_once(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.stall()
    client.connection.send_first(b"urgent" * 10)
    client.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.outside.close()
    server.loop.until(lambda: client.closed)
    server.loop.settle()
    assert client.closed == 1


def test_a_connection_prints_as_an_operator_writes_it(server: TcpServer) -> None:
    client = server.client()
    host, port = client.outside.getsockname()
    assert str(client.connection) == f"{host}:{port} over TCP"
    with socket.socket() as new:
        assert (
            str(TcpConnection(new, ("2001:db8::1", 7, 0, 0), server.loop, server.accepted, SharedBuffer()))
            == "[2001:db8::1]:7 over TCP"
        )
