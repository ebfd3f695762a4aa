"""What the TCP carrier sends on real loopback connections: frames stay whole, and no reader blocks the loop."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from contextlib import suppress
from time import monotonic

import pytest

from tests.carriers.house import House, frame
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.endpoint import Outcome

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


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
