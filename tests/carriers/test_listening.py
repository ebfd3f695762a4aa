"""The listening TCP socket: how many it accepts in a turn, and what it does without room for one more."""

from __future__ import annotations

from tests.carriers.house import House
from tests.machine import logged, no_more_descriptors
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.runtime.loop import SECONDS_TO_LOOK_AWAY


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
