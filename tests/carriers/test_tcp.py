"""TCP connections that this end dials: each dial succeeds or fails once, and in time."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.carriers.tcp_server import TcpServer, a_peer, frame
from tests.carriers.test_udp_socket import free_port
from tests.carriers.user import RecordingUser
from tests.machine import HandLoop, no_more_descriptors
from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.carriers.tcp import Dialling, TcpCarrier
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.carriers.udp_socket import UdpSocket
from vpntun.errors import PortInUse
from vpntun.wire.stream_framing import SharedBuffer


def dial(loop: HandLoop, address: tuple[str, int]) -> list[TcpConnection | None]:
    answers: list[TcpConnection | None] = []
    Dialling(address, loop, answers.append, ConnectionOwner(), SharedBuffer())
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


@pytest.mark.parametrize(("source", "seen"), [("127.0.0.7", "127.0.0.7"), ("192.0.2.77", "127.0.0.1")])
def test_a_connection_is_dialled_from_the_candidates_source_if_this_host_has_it(
    server: TcpServer, source: str, seen: str
) -> None:
    udp = UdpSocket(socket.AF_INET, 0, server.loop, answers_from_where_asked=False)
    candidate = udp.endpoint(("127.0.0.1", server.port))
    candidate.send_from(socket.inet_aton(source))
    answers: list[Stream | None] = []
    TcpCarrier(server.loop, None).dial(candidate, ConnectionOwner(), answers.append)
    server.loop.until(lambda: answers)
    accepted = server.accept()
    assert accepted is not None
    assert accepted.address[0] == seen
    (dialled,) = answers
    assert dialled is not None
    dialled.close()
    accepted.close()
    udp.close()


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


class Listener(ConnectionOwner):
    """An owner that notes why its dials have failed."""

    def __init__(self) -> None:
        self.reasons: list[int | None] = []

    def dial_failed(self, error: OSError) -> None:
        self.reasons.append(error.errno)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("127.0.0.1", errno.ECONNREFUSED), ("255.255.255.255", errno.ENETUNREACH), ("deaf", errno.ETIMEDOUT)],
)
def test_the_owner_of_a_dial_learns_why_it_has_failed(loop: HandLoop, address: str, reason: int) -> None:
    owner, answers = Listener(), list[Stream | None]()
    udp = UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False)
    with deaf_address() as deaf:
        where = deaf if address == "deaf" else (address, free_port(socket.AF_INET, socket.SOCK_STREAM))
        TcpCarrier(loop, None).dial(udp.endpoint(where), owner, answers.append)
        loop.settle()
        loop.pass_time(10.1)
        loop.until(lambda: answers)
        assert (owner.reasons, answers) == ([reason], [None])
    udp.close()


def test_the_owner_learns_that_there_were_no_more_descriptors(loop: HandLoop) -> None:
    owner, answers = Listener(), list[Stream | None]()
    udp = UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False)
    with no_more_descriptors():
        TcpCarrier(loop, None).dial(udp.endpoint(("127.0.0.1", 9)), owner, answers.append)
    loop.until(lambda: answers)
    assert owner.reasons == [errno.EMFILE]
    udp.close()


@contextmanager
def deaf_address() -> Iterator[tuple[str, int]]:
    """An address at which no connection is answered."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # the queue is full: the next ones get no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


def test_a_host_that_never_answers_is_given_up_after_ten_seconds(loop: HandLoop) -> None:
    with deaf_address() as address:
        answers = dial(loop, address)
        loop.pass_time(9.9)
        loop.settle()
        assert answers == []
        loop.pass_time(0.2)
        assert answers == [None]


def test_the_dials_of_one_owner_are_given_up_and_nobody_hears_of_them(loop: HandLoop) -> None:
    carrier, answers = TcpCarrier(loop, None), dict[str, list[Stream | None]](mine=[], others=[])
    mine, other = ConnectionOwner(), ConnectionOwner()
    udp = UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False)
    with deaf_address() as address:
        for _ in range(2):
            carrier.dial(udp.endpoint(address), mine, answers["mine"].append)
        carrier.dial(udp.endpoint(address), other, answers["others"].append)
        with no_more_descriptors():
            carrier.dial(udp.endpoint(address), mine, answers["mine"].append)
        carrier.give_up_dials(mine)
        loop.pass_time(11.0)
        loop.settle()
        assert answers == {"mine": [], "others": [None]}
    udp.close()


@pytest.mark.parametrize("which", ["dialled", "accepted"])
def test_a_stranger_may_send_a_longer_frame_if_its_header_fits_a_session_of_the_carriers_user(
    loop: HandLoop, which: str
) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    carrier, user = TcpCarrier(loop, port, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    message = bytes(range(16)).ljust(1452, b".")
    user.fitting.add(message[:16])
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        stack.callback(carrier.close)
        if which == "dialled":
            udp = UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False)
            stack.callback(udp.close)
            answers: list[Stream | None] = []
            carrier.dial(udp.endpoint(listener.getsockname()), ConnectionOwner(), answers.append)
            loop.until(lambda: answers)
            assert answers[0] is not None
            stack.callback(answers[0].close)
            other = stack.enter_context(listener.accept()[0])
        else:
            other = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        other.sendall(frame(message))
        loop.until(lambda: user.received == [message])


def test_closing_the_carrier_closes_its_connections_and_tells_nobody(loop: HandLoop) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    carrier, user = TcpCarrier(loop, port, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    with socket.create_connection(("127.0.0.1", port)) as outside:
        outside.settimeout(5)
        outside.sendall(frame(bytes(32)))
        loop.until(lambda: user.received, "for the frame")
        (connection,) = carrier.accepted._silent
        connection.belongs_to(a_peer())
        carrier.close()
        assert outside.recv(1) == b""
    assert user.closed == []


def test_another_port_is_listened_on_and_connections_of_the_former_one_stay(loop: HandLoop) -> None:
    first, second = free_port(socket.AF_INET), free_port(socket.AF_INET)
    carrier, user = TcpCarrier(loop, first, versions=[socket.AF_INET]), RecordingUser()
    carrier.start(user)
    with socket.create_connection(("127.0.0.1", first)) as old, ExitStack() as stack:
        loop.settle()
        carrier.prepare_port(second, stack, can_be_called=True)()
        stack.pop_all()
        assert carrier.port == second
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", first))
        with socket.create_connection(("127.0.0.1", second)) as new:
            loop.settle()
            for each in (old, new):
                each.setblocking(False)
                with pytest.raises(BlockingIOError):
                    each.recv(1)
    carrier.close()


def test_a_carrier_that_only_dials_listens_at_no_new_port(loop: HandLoop) -> None:
    carrier = TcpCarrier(loop, None, versions=[socket.AF_INET])
    with ExitStack() as stack:
        carrier.prepare_port(free_port(socket.AF_INET), stack, can_be_called=True)()
    assert carrier.port == 0
    carrier.close()


def test_a_taken_port_keeps_the_former_listeners(loop: HandLoop) -> None:
    carrier = TcpCarrier(loop, free_port(socket.AF_INET), versions=[socket.AF_INET])
    carrier.start(RecordingUser())
    with socket.create_server(("", 0)) as other, ExitStack() as stack, pytest.raises(PortInUse):
        carrier.prepare_port(other.getsockname()[1], stack, can_be_called=True)
    socket.create_connection(("127.0.0.1", carrier.port)).close()
    carrier.close()
