"""The TCP carrier on real loopback connections: strangers get little, frames stay whole, nothing blocks the loop."""

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

from tests.carriers.house import House, a_peer, frame
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
def house(loop: HandLoop) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(loop, stack)


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


# Accepting


def test_a_turn_accepts_sixteen_and_the_next_one_the_others(house: House) -> None:
    accepted: list[int] = []

    def accept() -> None:
        for connection in house.listener.accept(house.loop, house.accepted):
            house.loop.watch(connection.fileno(), connection.close)
            accepted[-1] += 1

    house.loop.watch(house.listener.fileno(), accept)
    outside = [house.call() for _ in range(20)]
    for _ in range(2):
        accepted.append(0)
        house.loop.poll(1.0)
    assert accepted == [16, 4]
    house.loop.forget(house.listener.fileno())
    for each in outside:
        each.close()
    house.loop.settle()


def test_nobody_waiting_is_no_connection(house: House) -> None:
    assert house.accept() is None


def test_without_room_for_a_connection_the_loop_looks_away_for_a_second_and_takes_it_then(house: House) -> None:
    taken: list[TcpConnection | None] = []
    house.loop.watch(house.listener.fileno(), lambda: taken.append(house.accept()))
    house.call()
    with logged() as lines, no_more_descriptors():
        for _ in range(20):
            house.loop.poll()
        assert taken == [None]
        house.loop.pass_time(SECONDS_TO_LOOK_AWAY)
        house.loop.poll()
        assert taken == [None, None]
    assert lines == ["connections have to wait: Too many open files (a limit of this process or of the system)"]
    house.loop.pass_time(SECONDS_TO_LOOK_AWAY)
    house.loop.poll()
    connection = taken[-1]
    assert connection is not None
    connection._socket.close()
    house.loop.forget(house.listener.fileno())


def test_a_listener_may_go_while_the_loop_looks_away_from_it(house: House) -> None:
    taken: list[TcpConnection | None] = []
    house.loop.watch(house.listener.fileno(), lambda: taken.append(house.accept()))
    house.call()
    with no_more_descriptors():
        house.loop.poll()
    house.loop.forget(house.listener.fileno())
    house.listener.close()
    house.loop.pass_time(SECONDS_TO_LOOK_AWAY)
    assert taken == [None]


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


# What goes out


def test_a_message_goes_behind_its_length(house: House) -> None:
    guest = house.guest()
    assert guest.connection.send([memoryview(b"a" * 148)]) is Outcome.SENT
    assert guest.connection.send_first(b"b" * 32) is Outcome.SENT
    assert guest.outside.recv(1000) == b"\x00\x94" + b"a" * 148 + b"\x00\x20" + b"b" * 32


def test_the_largest_message_goes_whole(house: House) -> None:
    guest = house.guest()
    guest.connection.send([memoryview(b"x" * 65535)])
    assert guest.hears(1) == [b"x" * 65535]


def test_a_reader_that_stalls_never_blocks_the_loop(house: House) -> None:
    stalled, other = house.guest(friend=True), house.guest(friend=True)
    started = monotonic()
    stalled.stall()
    assert not stalled.connection.ready()
    other.says(b"hello" * 10)
    house.loop.until(lambda: other.messages)
    assert other.connection.send([memoryview(b"hello" * 10)]) is Outcome.SENT
    assert monotonic() - started < 5


def test_a_frame_taken_in_part_is_finished_before_the_next(house: House) -> None:
    guest = house.guest(friend=True)
    sent = guest.stall()
    assert guest.ready == 0
    heard = guest.hears(len(sent))
    assert heard == sent
    house.loop.until(guest.connection.ready)
    assert guest.ready >= 1
    assert guest.connection.send([memoryview(b"next" * 10)]) is Outcome.SENT
    assert guest.hears(1) == [b"next" * 10]


def test_nothing_is_kept_of_a_frame_that_has_gone(house: House) -> None:
    guest = house.guest(friend=True)
    guest.outside.setblocking(False)
    message, taken = memoryview(bytes(65535)), bytearray(1 << 20)

    def has_gone() -> bool:
        with suppress(BlockingIOError):
            guest.outside.recv_into(taken)
        return guest.connection.ready()

    tracemalloc.start()
    try:
        while guest.connection.send([message]) is not Outcome.HELD:
            pass
        held, _ = tracemalloc.get_traced_memory()
        house.loop.until(has_gone)
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held > 65535
    assert left < 16384


@pytest.mark.parametrize("read_meanwhile", [False, True])
def test_a_batch_behind_a_frame_under_way_does_not_cut_into_it(house: House, read_meanwhile: bool) -> None:
    # A superpacket for a plain WireGuard may go as two batches, of which the first is held.
    guest = house.guest(friend=True)
    sent = guest.stall()
    if read_meanwhile:  # then the socket takes bytes again, before the loop has seen it
        guest.outside.setblocking(False)
        taken = guest.outside.recv(1 << 16)
    batch = [bytes([number]) * 1000 for number in range(20)]
    for _ in range(2):
        assert guest.connection.send([memoryview(b"".join(batch))], 1000) is Outcome.HELD
    if read_meanwhile:
        assert taken == b"".join(map(frame, sent))[: len(taken)]
        stream = bytearray(taken)
        expected = b"".join(map(frame, [*sent, *batch, *batch]))

        def all_there() -> bool:
            with suppress(BlockingIOError):
                stream.extend(guest.outside.recv(1 << 20))
            return len(stream) >= len(expected)

        house.loop.until(all_there)
        assert stream == expected
    else:
        assert guest.hears(len(sent) + 40) == [*sent, *batch, *batch]
    house.loop.until(guest.connection.ready)


def test_urgent_messages_go_after_the_frame_under_way_and_the_newest_four_are_kept(house: House) -> None:
    guest = house.guest(friend=True)
    sent = guest.stall()
    urgent = [b"urgent %d" % number * 5 for number in range(6)]
    for message in urgent:
        assert guest.connection.send_first(message) is Outcome.HELD
    heard: list[bytes] = []
    guest.on_ready = lambda: heard.append(b"data may go")
    assert guest.hears(len(sent) + 4) == sent + urgent[2:]
    house.loop.until(lambda: heard)
    assert guest.connection.ready()


def test_data_is_not_asked_for_while_urgent_messages_wait(house: House) -> None:
    guest = house.guest(friend=True)
    guest.stall()
    guest.connection.send_first(b"urgent" * 10)
    states: list[bool] = []
    guest.on_ready = lambda: states.append(guest.connection.ready())
    house.loop.settle()
    assert states == []
    guest.outside.setblocking(False)

    def drained() -> bool:
        with suppress(BlockingIOError):
            while True:
                guest.outside.recv(1 << 20)
        return bool(states)

    house.loop.until(drained)
    assert states[0] is True


def test_a_stalled_reader_takes_little_of_the_kernels_memory(house: House) -> None:
    guest = house.guest(friend=True)
    guest.outside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    assert sum(map(len, guest.stall())) < 4 << 20


def test_clogged_tells_of_bytes_that_have_not_left(house: House) -> None:
    guest = house.guest(friend=True)
    assert not guest.connection.clogged()
    guest.connection.send([memoryview(b"a" * 100)])
    house.loop.until(lambda: not guest.connection.clogged())
    sent = guest.stall()
    assert guest.connection.clogged()
    guest.hears(len(sent) + 1)
    house.loop.until(lambda: not guest.connection.clogged())


def test_what_has_closed_is_clogged_and_takes_nothing(house: House) -> None:
    guest = house.guest(friend=True)
    guest.connection.close()
    assert guest.connection.clogged()
    assert not guest.connection.ready()
    assert guest.connection.send([memoryview(b"a" * 100)]) is Outcome.UNDELIVERABLE
    assert guest.connection.send_first(b"a" * 100) is Outcome.UNDELIVERABLE
    guest.connection.flush()
    assert guest.closed == 1


def test_a_reset_found_out_by_sending_closes_once(house: House) -> None:
    guest = house.guest(friend=True)
    guest.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    guest.outside.close()
    until = monotonic() + 5
    while guest.connection.send([memoryview(b"a" * 100)]) is not Outcome.UNDELIVERABLE:
        assert monotonic() < until
    house.loop.settle()
    assert guest.closed == 1


def test_a_reset_in_the_middle_of_a_frame_closes_once(house: House) -> None:
    guest = house.guest(friend=True)
    guest.stall()
    guest.connection.send_first(b"urgent" * 10)
    guest.outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    guest.outside.close()
    house.loop.until(lambda: guest.closed)
    house.loop.settle()
    assert guest.closed == 1


def test_a_connection_reads_as_an_operator_writes_it(house: House) -> None:
    guest = house.guest()
    host, port = guest.outside.getsockname()
    assert str(guest.connection) == f"{host}:{port} over TCP"
    with socket.socket() as new:
        assert (
            str(TcpConnection(new, ("2001:db8::1", 7, 0, 0), house.loop, house.accepted)) == "[2001:db8::1]:7 over TCP"
        )


# Dialling


def dial(loop: HandLoop, address: tuple[str, int]) -> list[TcpConnection | None]:
    answers: list[TcpConnection | None] = []
    Dialling(socket.AF_INET, address, loop, answers.append, ConnectionOwner(SharedBuffer()))
    return answers


def test_without_room_for_a_connection_a_dial_fails_and_no_more(house: House) -> None:
    with no_more_descriptors():
        answers = dial(house.loop, ("127.0.0.1", house.port))
    assert answers == []
    house.loop.poll()
    assert answers == [None]


def test_a_dialled_connection_carries_messages_both_ways(house: House) -> None:
    answers = dial(house.loop, ("127.0.0.1", house.port))
    assert answers == []
    house.loop.until(lambda: answers)
    accepted = house.accept()
    (dialled,) = answers
    assert dialled is not None
    assert accepted is not None
    got: list[bytes] = []
    house.loop.watch(accepted.fileno(), lambda: got.extend(map(bytes, accepted.receive())))
    house.loop.watch(dialled.fileno(), lambda: got.extend(map(bytes, dialled.receive())))
    dialled.send([memoryview(b"question" * 10)])
    house.loop.until(lambda: len(got) == 1)
    accepted.send([memoryview(b"answer" * 10)])
    house.loop.until(lambda: len(got) == 2)
    assert got == [b"question" * 10, b"answer" * 10]
    house.loop.pass_time(60)
    assert len(answers) == 1
    accepted.close()
    dialled.close()


def test_a_refused_connection_is_told_once(loop: HandLoop) -> None:
    answers = dial(loop, ("127.0.0.1", free_port(socket.AF_INET, socket.SOCK_STREAM)))
    loop.until(lambda: answers)
    loop.pass_time(60)
    assert answers == [None]


def test_an_address_without_a_way_there_is_told_once(loop: HandLoop) -> None:
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
