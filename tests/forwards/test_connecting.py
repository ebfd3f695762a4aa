"""Connecting to targets: addresses in turn, names, unix sockets, time limits, and whom it wakes."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path
from weakref import ref

import pytest

from tests.forwards.sockets import Loopback
from tests.machine import HandLoop, no_more_descriptors
from vpntun.forwards.connecting import SECONDS_FOR_ADDRESS, SECONDS_FOR_TARGET, Connecting, connect
from vpntun.forwards.side import Side
from vpntun.types import Place


class Attempt:
    """A connection that is being made, and what became of it."""

    def __init__(self, loop: HandLoop, side: Side, target: Path | Place) -> None:
        self.connected: list[socket.socket] = []
        self.errors: list[OSError] = []
        self.connecting: Connecting = connect(loop, side, target, self.connected.append, self.errors.append)

    @property
    def is_over(self) -> bool:
        return bool(self.connected or self.errors)


@pytest.fixture
def listener(made: ExitStack) -> socket.socket:
    return made.enter_context(socket.create_server(("127.0.0.1", 0)))


@pytest.fixture
def silent(made: ExitStack) -> Place:
    """A place where nobody answers: the queue of new connections is full."""
    full = made.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    waiting = made.enter_context(socket.socket())
    waiting.setblocking(False)
    place: Place = full.getsockname()
    for _ in range(3):
        more = made.enter_context(socket.socket())
        more.setblocking(False)
        more.connect_ex(place)
    return place


def attempt(made: ExitStack, loop: HandLoop, side: Side, target: Path | Place) -> Attempt:
    new = Attempt(loop, side, target)

    def close() -> None:
        new.connecting.close()
        for each in new.connected:
            each.close()

    made.callback(close)
    return new


def test_a_literal_address_is_connected_to(loop: HandLoop, made: ExitStack, listener: socket.socket) -> None:
    new = attempt(made, loop, Loopback(loop), listener.getsockname())
    assert not new.is_over
    loop.until(lambda: new.is_over)
    assert new.connected[0].getpeername() == listener.getsockname()
    assert not new.connected[0].getblocking()
    loop.pass_time(2 * SECONDS_FOR_TARGET)
    assert (len(new.connected), new.errors) == (1, [])


def test_an_address_with_a_zone_is_looked_up_where_the_target_is(
    loop: HandLoop, made: ExitStack, listener: socket.socket
) -> None:
    side = Loopback(loop, {"fe80::1%lo": [(socket.AF_INET, ("127.0.0.1", 0))]})
    new = attempt(made, loop, side, ("fe80::1%lo", listener.getsockname()[1]))
    loop.until(lambda: new.is_over)
    assert new.connected[0].getpeername() == listener.getsockname()


def test_an_attempt_that_is_over_is_not_kept_until_its_time_limit(
    loop: HandLoop, made: ExitStack, listener: socket.socket
) -> None:
    place = listener.getsockname()
    side = Loopback(loop, {"db": [(socket.AF_INET, place), (socket.AF_INET, place)]})
    new = Attempt(loop, side, ("db", place[1]))
    loop.until(lambda: new.is_over)
    made.enter_context(new.connected[0])
    weak = ref(new.connecting)
    del new.connecting
    loop.poll()
    assert weak() is None


def test_a_connection_that_was_made_is_the_callers_to_watch(
    loop: HandLoop, made: ExitStack, listener: socket.socket
) -> None:
    new = attempt(made, loop, Loopback(loop), listener.getsockname())
    loop.until(lambda: new.is_over)
    loop.watch(new.connected[0].fileno(), lambda: None)


def test_the_next_address_is_tried_when_one_refuses(loop: HandLoop, made: ExitStack, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    names = {
        "db": [
            (socket.AF_INET6, ("::1", 0)),
            (socket.AF_INET, ("127.0.0.9", 0)),
            (socket.AF_INET, ("127.0.0.1", 0)),
        ]
    }
    side = Loopback(loop, names, closed=frozenset({int(socket.AF_INET6)}))
    new = attempt(made, loop, side, ("db", port))
    loop.until(lambda: new.is_over)
    assert new.connected[0].getpeername() == ("127.0.0.1", port)


def test_the_last_refusal_is_reported(loop: HandLoop, made: ExitStack, listener: socket.socket) -> None:
    place = listener.getsockname()
    listener.close()
    new = attempt(made, loop, Loopback(loop), place)
    loop.until(lambda: new.is_over)
    assert [error.errno for error in new.errors] == [errno.ECONNREFUSED]


def test_a_name_that_is_not_found_is_reported(loop: HandLoop, made: ExitStack) -> None:
    new = attempt(made, loop, Loopback(loop), ("nowhere", 80))
    loop.until(lambda: new.is_over)
    assert "not known" in str(new.errors[0])


def test_the_next_address_is_tried_when_one_is_silent(
    loop: HandLoop, made: ExitStack, listener: socket.socket, silent: Place
) -> None:
    names = {"db": [(socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET, ("127.0.0.2", 0))]}
    other = made.enter_context(socket.create_server(("127.0.0.2", silent[1])))
    new = attempt(made, loop, Loopback(loop, names), ("db", silent[1]))
    loop.settle()
    assert not new.is_over
    loop.pass_time(SECONDS_FOR_ADDRESS)
    loop.until(lambda: new.is_over)
    assert new.connected[0].getpeername() == other.getsockname()


def test_a_target_that_is_silent_is_given_up_in_time_and_does_not_wake_the_loop(
    loop: HandLoop, made: ExitStack, silent: Place
) -> None:
    new = attempt(made, loop, Loopback(loop), silent)
    loop.settle()
    woken = 0
    for _ in range(20):
        loop.poll()
        woken += not loop.is_idle
    assert woken == 0
    loop.pass_time(SECONDS_FOR_TARGET)
    assert [error.errno for error in new.errors] == [errno.ETIMEDOUT]


def test_a_unix_socket_is_connected_to_once_its_queue_has_room(loop: HandLoop, made: ExitStack, tmp_path: Path) -> None:
    path = tmp_path / "s"
    full = made.enter_context(socket.socket(socket.AF_UNIX))
    full.bind(str(path))
    full.listen(0)
    first = attempt(made, loop, Loopback(loop), path)
    loop.until(lambda: first.is_over)
    new = attempt(made, loop, Loopback(loop), path)
    loop.settle()
    assert not new.is_over
    accepted, _ = full.accept()
    made.enter_context(accepted)
    loop.pass_time(1.0)
    loop.until(lambda: new.is_over)
    assert new.errors == []


def test_a_unix_socket_that_is_not_there_is_reported(loop: HandLoop, made: ExitStack, tmp_path: Path) -> None:
    new = attempt(made, loop, Loopback(loop), tmp_path / "none")
    loop.until(lambda: new.is_over)
    assert [error.errno for error in new.errors] == [errno.ENOENT]


def test_an_attempt_that_was_closed_calls_nobody_and_leaves_no_descriptor(
    loop: HandLoop, made: ExitStack, silent: Place
) -> None:
    before = os.listdir("/proc/self/fd")
    new = attempt(made, loop, Loopback(loop), silent)
    loop.settle()
    new.connecting.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    loop.pass_time(2 * SECONDS_FOR_TARGET)
    assert not new.is_over


def test_a_machine_without_room_for_another_socket_is_reported(
    loop: HandLoop, made: ExitStack, listener: socket.socket
) -> None:
    new = attempt(made, loop, Loopback(loop), listener.getsockname())
    with no_more_descriptors():
        loop.until(lambda: new.is_over)
    assert [error.errno for error in new.errors] == [errno.EMFILE]
