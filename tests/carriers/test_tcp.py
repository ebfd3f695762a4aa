"""TCP carrier on real loopback connections: strangers get little, frames stay whole, nothing blocks the loop."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carriers.tcp_server import TcpServer, a_peer, frame
from tests.carriers.test_udp_socket import free_port
from tests.datapath.ends import CAROL
from tests.machine import HandLoop, logged, no_more_descriptors
from vpntun.carriers.base import ConnectionOwner
from vpntun.carriers.tcp import Dialling
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.endpoint import Outcome
from vpntun.errors import BadPacket
from vpntun.runtime.loop import SECONDS_TO_LOOK_AWAY
from vpntun.wire.framing import SharedBuffer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@pytest.fixture
def server(loop: HandLoop) -> Iterator[TcpServer]:
    with ExitStack() as stack:
        yield TcpServer(loop, stack)


# Receiving


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


# Accepting


def test_a_turn_accepts_sixteen_connections_and_the_next_turn_the_others(server: TcpServer) -> None:
    accepted: list[int] = []

    def accept() -> None:
        for connection in server.listener.accept(server.loop, server.accepted):
            server.loop.watch(connection.fileno(), connection.close)
            accepted[-1] += 1

    server.loop.watch(server.listener.fileno(), accept)
    outside = [server.call() for _ in range(20)]
    for _ in range(2):
        accepted.append(0)
        server.loop.poll(1.0)
    assert accepted == [16, 4]
    server.loop.forget(server.listener.fileno())
    for each in outside:
        each.close()
    server.loop.settle()


def test_without_a_waiting_connection_none_is_accepted(server: TcpServer) -> None:
    assert server.accept() is None


def test_without_descriptors_the_loop_ignores_the_listener_for_a_second_and_accepts_then(server: TcpServer) -> None:
    taken: list[TcpConnection | None] = []
    server.loop.watch(server.listener.fileno(), lambda: taken.append(server.accept()))
    server.call()
    with logged() as lines, no_more_descriptors():
        for _ in range(20):
            server.loop.poll()
        assert taken == [None]
        server.loop.pass_time(SECONDS_TO_LOOK_AWAY)
        server.loop.poll()
        assert taken == [None, None]
    assert lines == ["connections have to wait: Too many open files (a limit of this process or of the system)"]
    server.loop.pass_time(SECONDS_TO_LOOK_AWAY)
    server.loop.poll()
    connection = taken[-1]
    assert connection is not None
    connection._socket.close()
    server.loop.forget(server.listener.fileno())


def test_a_listener_may_be_closed_while_the_loop_ignores_it(server: TcpServer) -> None:
    taken: list[TcpConnection | None] = []
    server.loop.watch(server.listener.fileno(), lambda: taken.append(server.accept()))
    server.call()
    with no_more_descriptors():
        server.loop.poll()
    server.loop.forget(server.listener.fileno())
    server.listener.close()
    server.loop.pass_time(SECONDS_TO_LOOK_AWAY)
    assert taken == [None]


# Owner


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


def test_hanging_up_a_closed_connection_does_nothing(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    client.connection.hang_up_later()
    client.connection.hang_up_later()
    client.connection.close()
    server.loop.pass_time(5)
    assert client.closed == 1


# Sending


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
    assert held > 65535
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


def test_urgent_messages_follow_the_frame_under_way_and_the_newest_four_are_kept(server: TcpServer) -> None:
    client = server.client(authenticated=True)
    sent = client.stall()
    urgent = [b"urgent %d" % number * 5 for number in range(6)]
    for message in urgent:
        assert client.connection.send_first(message) is Outcome.HELD
    heard: list[bytes] = []
    client.on_ready = lambda: heard.append(b"data may go")
    assert client.receive(len(sent) + 4) == sent + urgent[2:]
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
            str(TcpConnection(new, ("2001:db8::1", 7, 0, 0), server.loop, server.accepted))
            == "[2001:db8::1]:7 over TCP"
        )


# Dialling


def dial(loop: HandLoop, address: tuple[str, int]) -> list[TcpConnection | None]:
    answers: list[TcpConnection | None] = []
    Dialling(socket.AF_INET, address, loop, answers.append, ConnectionOwner(SharedBuffer()))
    return answers


def test_without_descriptors_a_dial_fails_and_nothing_else(server: TcpServer) -> None:
    with no_more_descriptors():
        answers = dial(server.loop, ("127.0.0.1", server.port))
    assert answers == []
    server.loop.poll()
    assert answers == [None]


def test_a_dialled_connection_carries_messages_both_ways(server: TcpServer) -> None:
    answers = dial(server.loop, ("127.0.0.1", server.port))
    assert answers == []
    server.loop.until(lambda: answers)
    accepted = server.accept()
    (dialled,) = answers
    assert dialled is not None
    assert accepted is not None
    got: list[bytes] = []
    server.loop.watch(accepted.fileno(), lambda: got.extend(map(bytes, accepted.receive())))
    server.loop.watch(dialled.fileno(), lambda: got.extend(map(bytes, dialled.receive())))
    dialled.send([memoryview(b"question" * 10)])
    server.loop.until(lambda: len(got) == 1)
    accepted.send([memoryview(b"answer" * 10)])
    server.loop.until(lambda: len(got) == 2)
    assert got == [b"question" * 10, b"answer" * 10]
    server.loop.pass_time(60)
    assert len(answers) == 1
    accepted.close()
    dialled.close()


def test_a_refused_connection_is_reported_once(loop: HandLoop) -> None:
    answers = dial(loop, ("127.0.0.1", free_port(socket.AF_INET, socket.SOCK_STREAM)))
    loop.until(lambda: answers)
    loop.pass_time(60)
    assert answers == [None]


def test_an_unreachable_address_is_reported_once(loop: HandLoop) -> None:
    answers = dial(loop, ("255.255.255.255", 55555))
    loop.until(lambda: answers)
    loop.pass_time(60)
    assert answers == [None]


def test_a_host_that_never_answers_is_given_up_after_ten_seconds(loop: HandLoop) -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full: the next ones get no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        answers = dial(loop, full.getsockname())
        loop.pass_time(9.9)
        loop.settle()
        assert answers == []
        loop.pass_time(0.2)
        assert answers == [None]


# Random bytes


@settings(deadline=None, max_examples=60)
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
