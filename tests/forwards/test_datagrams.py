"""Forward of datagrams: a flow for each client, how long it lasts, and which flow ends when there are too many."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import pytest

from tests.forwards.sockets import Loopback, free_port
from tests.machine import HandLoop, logged
from vpntun.config.forwards import Forward
from vpntun.forwards.connections import Connections
from vpntun.forwards.datagrams import (
    BURST_OF_FLOWS,
    MOST_CONNECTED_PER_TURN,
    SECONDS_BETWEEN_LOOKS,
    SECONDS_IDLE,
    SECONDS_SAFE,
    SECONDS_UNANSWERED,
    DatagramForward,
)
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.side import Side
from vpntun.forwards.sides import MachineSide
from vpntun.runtime.resolver import Lookups, OnFound
from vpntun.types import Place


class Target:
    """A server that answers each datagram in capitals, once the test lets it."""

    def __init__(self, loop: HandLoop) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._loop = loop
        self.place: Place = self._socket.getsockname()
        self.got: list[bytes] = []
        self.answers = True
        loop.watch(self._socket.fileno(), self._receive)

    def close(self) -> None:
        self._loop.forget(self._socket.fileno())
        self._socket.close()

    def _receive(self) -> None:
        datagram, client = self._socket.recvfrom(65536)
        self.got.append(datagram)
        if self.answers:
            self._socket.sendto(datagram.upper(), client)


@pytest.fixture
def target(loop: HandLoop, made: ExitStack) -> Target:
    new = Target(loop)
    made.callback(new.close)
    return new


class SlowNames(Loopback):
    """A side whose resolver answers once the test lets it."""

    def __init__(self, loop: HandLoop, names: Mapping[str, Sequence[tuple[int, Place]]]) -> None:
        super().__init__(loop, names)
        self._questions: list[Callable[[], None]] = []
        self.asked = 0

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        self.asked += 1
        self._questions.append(partial(super().look_up, host, port, answer))

    def answer(self) -> None:
        while self._questions:
            self._questions.pop()()


class Made:
    """A forward to the target."""

    def __init__(
        self, loop: HandLoop, target: Place, most: int, host: str = "127.0.0.1", side: Side | None = None
    ) -> None:
        self.loop = loop
        self.port = free_port(socket.SOCK_DGRAM)
        lookups = Lookups(loop)
        side = side or (MachineSide(lookups) if not host else Loopback(loop))
        forward = Forward("udp", (host, self.port), target)
        listening = ListeningSockets(forward, side)
        self.forward = DatagramForward(loop, forward, listening, side, Connections(loop, most))
        self.forward.begin()
        self._lookups = lookups

    def close(self) -> None:
        self.forward.close()
        self._lookups.close()

    def ask(self, client: socket.socket, datagram: bytes) -> bytes:
        """Send a datagram, and return the answer."""
        client.sendto(datagram, ("127.0.0.1", self.port))
        return self.loop.arrival(client)[0]


def forward_to(
    loop: HandLoop, made: ExitStack, target: Place, most: int = 100, host: str = "127.0.0.1", side: Side | None = None
) -> Made:
    new = Made(loop, target, most, host, side)
    made.callback(new.close)
    return new


def new_client(made: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    new = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    new.bind((host, 0))
    new.setblocking(False)
    return new


def test_each_client_has_a_flow_of_its_own(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place)
    clients = [new_client(made) for _ in range(3)]
    for number, each in enumerate(clients):
        assert new.ask(each, b"client %d" % number) == b"CLIENT %d" % number
    assert new.ask(clients[0], bytes(40_000)) == bytes(40_000)
    counters = new.forward.counters
    assert (counters.connections, counters.total, counters.sent) == (3, 3, 24 + 40_000)


def test_answers_come_from_the_address_that_was_asked(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place, host="")
    client = new_client(made, "127.0.0.1")
    client.connect(("127.0.0.9", new.port))
    client.send(b"a")
    assert loop.arrival(client)[0] == b"A"


def test_flows_end_when_they_have_been_idle(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place)
    answered, other = new_client(made), new_client(made)
    new.ask(answered, b"a")
    target.answers = False
    other.sendto(b"b", ("127.0.0.1", new.port))
    loop.until(lambda: b"b" in target.got)
    assert new.forward.counters.connections == 2
    for _ in range(int(SECONDS_UNANSWERED // SECONDS_BETWEEN_LOOKS) + 1):
        loop.pass_time(SECONDS_BETWEEN_LOOKS)
    assert new.forward.counters.connections == 1
    for _ in range(int(SECONDS_IDLE // SECONDS_BETWEEN_LOOKS)):
        loop.pass_time(SECONDS_BETWEEN_LOOKS)
    assert new.forward.counters.connections == 0


def test_newcomers_displace_unanswered_flows_alone(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place, most=3)
    answered = new_client(made)
    new.ask(answered, b"mine")
    target.answers = False
    for number in range(10):
        new_client(made).sendto(b"flood %d" % number, ("127.0.0.1", new.port))
    loop.until(lambda: b"flood 9" in target.got)
    assert new.forward.counters.connections == 3
    target.answers = True
    assert new.ask(answered, b"still") == b"STILL"
    assert new.forward.counters.total == 11


def test_a_client_without_room_is_refused_where_all_flows_are_answered(
    loop: HandLoop, made: ExitStack, target: Target
) -> None:
    new = forward_to(loop, made, target.place, most=1)
    new.ask(new_client(made), b"first")
    with logged() as lines:
        for _ in range(3):
            new_client(made).sendto(b"second", ("127.0.0.1", new.port))
        loop.until(lambda: new.forward.counters.refused == 3)
    assert lines == [f"refused: there is no room for another client of {new.forward.forward}"]
    assert target.got == [b"first"]


def test_a_flow_that_was_not_used_for_a_while_gives_way(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place, most=2)
    new.ask(new_client(made), b"a question")
    loop.pass_time(SECONDS_SAFE)
    new.ask(new_client(made), b"another one")
    assert new.ask(new_client(made), b"a third") == b"A THIRD"
    assert (new.forward.counters.connections, new.forward.counters.refused) == (2, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", ""])
def test_a_datagram_that_comes_back_to_its_forward_goes_no_further(loop: HandLoop, made: ExitStack, host: str) -> None:
    new = forward_to(loop, made, ("127.0.0.1", 1), host=host)
    new.forward.retarget(Forward("udp", (host, new.port), ("127.0.0.1", new.port)))
    client = new_client(made)
    for _ in range(3):
        client.sendto(b"a", ("127.0.0.1", new.port))
        loop.settle(0.01)
    assert (new.forward.counters.total, new.forward.counters.sent) == (1, 3)


def test_a_flood_of_clients_begins_a_limited_number_of_flows(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, target.place, most=5)
    target.answers = False
    for number in range(BURST_OF_FLOWS + 1):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind((f"127.1.{number >> 8}.{number & 255}", 0))
            client.sendto(b"a", ("127.0.0.1", new.port))
        loop.poll()
    loop.until(lambda: new.forward.counters.refused)
    assert (new.forward.counters.total, new.forward.counters.refused) == (BURST_OF_FLOWS, 1)
    target.answers = True
    loop.pass_time(1.0)
    assert new.ask(new_client(made), b"a") == b"A"


def test_many_who_wait_for_a_name_are_all_connected_after_one_look_up(
    loop: HandLoop, made: ExitStack, target: Target
) -> None:
    place = target.place
    side = SlowNames(loop, {"target": [(socket.AF_INET, place)]})
    new = forward_to(loop, made, ("target", place[1]), side=side)
    clients = [new_client(made) for _ in range(2 * MOST_CONNECTED_PER_TURN + 1)]
    for each in clients:
        each.sendto(b"a", ("127.0.0.1", new.port))
    loop.until(lambda: new.forward.counters.connections == len(clients))
    assert side.asked == 1
    side.answer()
    loop.until(lambda: len(target.got) == len(clients))


def test_an_answer_about_a_former_target_is_ignored(loop: HandLoop, made: ExitStack, target: Target) -> None:
    side = SlowNames(loop, {"former": [(socket.AF_INET, ("127.0.0.1", 1))]})
    new = forward_to(loop, made, ("former", 1), side=side)
    client = new_client(made)
    client.sendto(b"a", ("127.0.0.1", new.port))
    loop.until(lambda: side.asked)
    new.forward.retarget(Forward("udp", ("127.0.0.1", new.port), target.place))
    side.answer()
    assert new.ask(client, b"found") == b"FOUND"
    assert new.forward.counters.failed == 0


def test_a_target_that_is_not_found_is_looked_up_again_after_a_second(loop: HandLoop, made: ExitStack) -> None:
    new = forward_to(loop, made, ("nowhere", 53))
    client = new_client(made)
    for _ in range(3):
        client.sendto(b"a", ("127.0.0.1", new.port))
        loop.settle(0.01)
    assert (new.forward.counters.failed, new.forward.counters.connections) == (1, 1)
    loop.pass_time(1.0)
    assert new.forward.counters.connections == 0
    client.sendto(b"a", ("127.0.0.1", new.port))
    loop.until(lambda: new.forward.counters.failed == 2)


def test_another_target_takes_over_at_once(loop: HandLoop, made: ExitStack, target: Target) -> None:
    new = forward_to(loop, made, ("127.0.0.1", free_port(socket.SOCK_DGRAM)))
    client = new_client(made)
    client.sendto(b"lost", ("127.0.0.1", new.port))
    loop.until(lambda: new.forward.counters.failed)
    new.forward.retarget(Forward("udp", ("127.0.0.1", new.port), target.place))
    assert new.ask(client, b"found") == b"FOUND"
