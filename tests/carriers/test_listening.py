"""The listening TCP socket: how many it accepts in a turn, and what it does without room for one more."""

from __future__ import annotations

from tests.carriers.tcp_server import TcpServer
from tests.machine import logged, no_more_descriptors
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.runtime.loop import SECONDS_TO_LOOK_AWAY


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
