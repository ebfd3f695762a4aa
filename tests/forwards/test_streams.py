"""Forward of connections: many at once, no room, and clients and targets that vanish early."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from functools import partial

import pytest

from tests.forwards.sockets import Echo, Loopback, client_of, free_port, has_ended, receive, was_reset
from tests.machine import HandLoop, logged
from vpntun.config.forwards import Forward, Target
from vpntun.forwards.connecting import Connecting, OnConnected, OnFailed, connect
from vpntun.forwards.connections import Connections
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.relay import reset_at_close
from vpntun.forwards.streams import StreamForward
from vpntun.types import Place


class Made:
    """A forward to an echo server."""

    def __init__(self, loop: HandLoop, most: int, target: Place) -> None:
        self.loop = loop
        side = Loopback(loop)
        self.place = "127.0.0.1", free_port()
        self.connections = Connections(loop, most)
        forward = Forward("tcp", self.place, target)

        def dial(target: Target, on_connected: OnConnected, on_failed: OnFailed) -> Connecting:
            assert isinstance(target, tuple)
            return connect(loop, side, target, on_connected, on_failed)

        self.running = StreamForward(loop, forward, ListeningSockets(forward, side), dial, self.connections)
        self.running.begin()

    def close(self) -> None:
        self.running.close()
        self.connections.close()


@pytest.fixture
def echo(loop: HandLoop, made: ExitStack) -> Echo:
    new = Echo(loop)
    made.callback(new.close)
    return new


def forward_to(loop: HandLoop, made: ExitStack, target: Place, most: int = 1000) -> Made:
    new = Made(loop, most, target)
    made.callback(new.close)
    return new


def test_many_connections_at_once_are_all_passed_on(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    new = forward_to(loop, made, echo.place)
    clients = [made.enter_context(client_of(new.place)) for _ in range(60)]
    loop.until(lambda: new.running.counters.connections == 60)
    for number, each in enumerate(clients):
        each.send(b"%03d" % number)
    for number, each in enumerate(clients):
        assert receive(loop, each, 3) == b"%03d" % number
    for each in clients:
        each.shutdown(socket.SHUT_WR)
    for each in clients:
        loop.until(partial(has_ended, each))
    loop.until(lambda: new.running.counters.connections == 0)
    assert new.running.counters.sent == new.running.counters.received == 180


def test_a_connection_without_room_is_reset_and_others_go_on(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    new = forward_to(loop, made, echo.place, most=1)
    first = made.enter_context(client_of(new.place))
    loop.until(lambda: new.running.counters.connections == 1)
    with logged() as lines:
        refused = [made.enter_context(client_of(new.place)) for _ in range(5)]
        for each in refused:
            loop.until(partial(was_reset, each))
    assert lines == [f"refused: there is no room for another connection of {new.running.forward}"]
    first.send(b"ping")
    assert receive(loop, first, 4) == b"ping"
    first.shutdown(socket.SHUT_WR)
    loop.until(lambda: new.running.counters.connections == 0)
    later = made.enter_context(client_of(new.place))
    loop.settle()
    later.send(b"ping")
    assert receive(loop, later, 4) == b"ping"
    assert new.running.counters.refused == 5


def test_a_target_that_refuses_is_named_in_one_line(loop: HandLoop, made: ExitStack) -> None:
    target = "127.0.0.1", free_port()
    new = forward_to(loop, made, target)
    with logged() as lines:
        for _ in range(3):
            client = made.enter_context(client_of(new.place))
            loop.until(partial(was_reset, client))
    assert lines == [f"refused: 127.0.0.1:{target[1]} cannot be reached for {new.running.forward}: Connection refused"]
    assert new.running.counters.connections == 0


def test_a_client_that_vanishes_before_its_target_is_connected_leaves_nothing(
    loop: HandLoop, made: ExitStack, echo: Echo
) -> None:
    new = forward_to(loop, made, echo.place)
    client = client_of(new.place)
    reset_at_close(client)
    client.close()
    loop.settle()
    assert new.running.counters.connections == 0


def test_a_client_that_resets_its_connection_ends_the_attempt_to_a_silent_target(
    loop: HandLoop, made: ExitStack
) -> None:
    full = made.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        made.enter_context(client_of(full.getsockname()))
    new = forward_to(loop, made, full.getsockname())
    client = client_of(new.place)
    client.send(b"question")
    loop.until(lambda: new.running.counters.connections == 1)
    loop.settle(0.01)
    assert new.running.counters.connections == 1
    reset_at_close(client)
    client.close()
    loop.until(lambda: new.running.counters.connections == 0)
    assert new.running.counters.failed == 0


def test_closing_resets_what_has_no_target_yet(loop: HandLoop, made: ExitStack, echo: Echo) -> None:
    full = made.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        made.enter_context(client_of(full.getsockname()))
    new = forward_to(loop, made, full.getsockname())
    client = made.enter_context(client_of(new.place))
    loop.until(lambda: new.running.counters.connections == 1)
    new.running.close()
    loop.until(lambda: was_reset(client))
    assert new.running.counters.connections == 0
