"""Flow of datagrams: what waits for the target's address, failures, and errors that the target reports."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.forwards.sockets import Loopback, free_port
from tests.machine import HandLoop
from vpntun.forwards.connections import MOST_WAITING_BYTES, Connections, Counters
from vpntun.forwards.flow import MOST_WAITING, Flow
from vpntun.runtime.resolver import Found


class Made:
    """A flow, what it has given to its client, and its failures."""

    def __init__(self, loop: HandLoop, closed: frozenset[int] = frozenset()) -> None:
        self.answers: list[bytes] = []
        self.failures: list[OSError] = []
        self.counters = Counters()
        connections = Connections(loop, most=1)
        self.room = connections.waiting
        assert self.room.take(MOST_WAITING_BYTES - 100)
        self.flow = Flow(
            loop,
            Loopback(loop, closed=closed),
            self.counters,
            connections,
            bytearray(65536),
            lambda datagram: self.answers.append(bytes(datagram)),
            self.failures.append,
        )

    def send(self, datagram: bytes) -> None:
        self.flow.send(memoryview(datagram))


@pytest.fixture
def target(made: ExitStack) -> socket.socket:
    new = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    new.bind(("127.0.0.1", 0))
    new.settimeout(5)
    return new


@pytest.fixture
def new(loop: HandLoop, made: ExitStack) -> Made:
    flow = Made(loop)
    made.callback(flow.flow.close)
    return flow


def found(place: tuple[str, int]) -> Found:
    return [(socket.AF_INET, place)]


def test_datagrams_wait_for_the_targets_address_and_the_last_ones_are_kept(new: Made, target: socket.socket) -> None:
    for number in range(MOST_WAITING + 1):
        new.send(b"%d" % number)
    new.flow.connect(found(target.getsockname()), None)
    assert [target.recv(10) for _ in range(MOST_WAITING)] == [b"%d" % number for number in range(1, MOST_WAITING + 1)]


def test_datagrams_wait_only_as_far_as_there_is_room_for_all_flows(new: Made, target: socket.socket) -> None:
    assert new.room.take(60)
    new.send(b"first")
    new.send(bytes(40))
    new.send(b"second")
    new.flow.connect(found(target.getsockname()), None)
    assert [target.recv(100) for _ in range(2)] == [b"first", b"second"]
    assert new.room.take(40)


def test_a_flow_that_ends_keeps_no_datagrams(new: Made) -> None:
    new.send(bytes(100))
    new.flow.close()
    new.send(bytes(100))
    assert new.room.take(100)


def test_answers_reach_the_client_even_empty_ones(loop: HandLoop, new: Made, target: socket.socket) -> None:
    new.flow.connect(found(target.getsockname()), None)
    new.send(b"question")
    question, client = target.recvfrom(10)
    assert not new.flow.answered
    target.sendto(b"", client)
    target.sendto(b"answer", client)
    loop.until(lambda: len(new.answers) == 2)
    assert (question, new.answers) == (b"question", [b"", b"answer"])
    assert new.flow.answered
    assert (new.counters.sent, new.counters.received) == (8, 6)


def test_only_the_target_may_answer(loop: HandLoop, new: Made, target: socket.socket, made: ExitStack) -> None:
    new.flow.connect(found(target.getsockname()), None)
    new.send(b"question")
    _, client = target.recvfrom(10)
    stranger = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    stranger.sendto(b"forged", client)
    loop.settle()
    assert new.answers == []


def test_the_next_address_is_used_where_one_cannot_be(loop: HandLoop, target: socket.socket) -> None:
    new = Made(loop, closed=frozenset({int(socket.AF_INET6)}))
    new.flow.connect([(socket.AF_INET6, ("::1", 1)), *found(target.getsockname())], None)
    new.send(b"a")
    assert target.recv(10) == b"a"
    new.flow.close()


def test_a_closed_port_is_reported_and_the_flow_goes_on(loop: HandLoop, new: Made, made: ExitStack) -> None:
    place = "127.0.0.1", free_port(socket.SOCK_DGRAM)
    new.flow.connect(found(place), None)
    new.send(b"lost")
    loop.until(lambda: new.failures)
    assert str(new.failures[0]).endswith("Connection refused")
    target = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    target.bind(place)
    target.settimeout(5)
    new.send(b"again")
    assert target.recv(10) == b"again"


def test_a_target_that_is_not_found_is_reported_and_datagrams_are_dropped(new: Made) -> None:
    new.send(b"a")
    new.flow.connect([], socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    new.send(b"b")
    assert [each.strerror for each in new.failures] == ["Name or service not known"]
    assert not new.flow.is_connected


def test_an_address_that_is_found_after_the_end_is_ignored(new: Made, target: socket.socket) -> None:
    new.flow.close()
    new.flow.connect(found(target.getsockname()), None)
    assert not new.flow.is_connected
