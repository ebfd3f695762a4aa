"""Event loop: deadlines, the order of callbacks, descriptors that come and go, and pauses."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import pytest

from tests.machine import HandLoop
from vpntun.errors import DeviceError
from vpntun.runtime.clock import boottime
from vpntun.runtime.loop import MOST_DESCRIPTORS, Loop, allow_many_descriptors

NEVER = float("inf")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with left, right:
        yield left, right


Pair = tuple[socket.socket, socket.socket]


def test_a_readable_descriptor_is_called_back_until_it_is_read(loop: HandLoop, pair: Pair) -> None:
    got: list[bytes] = []
    loop.watch(pair[0].fileno(), lambda: got.append(pair[0].recv(1)))
    loop.poll()
    assert got == []
    pair[1].send(b"ab")
    loop.poll()
    loop.poll()
    loop.poll()
    assert got == [b"a", b"b"]


def test_a_turn_is_idle_if_no_descriptor_is_ready(loop: HandLoop, pair: Pair) -> None:
    got: list[bytes] = []
    seen: list[bool] = []
    loop.watch(pair[0].fileno(), lambda: got.append(pair[0].recv(1)))
    pair[1].send(b"a")
    for _ in range(2):
        loop.call_later(0.0, lambda: seen.append(loop.is_idle))
        loop.poll()
    assert seen == [False, True]


def test_on_writable_is_called_only_while_it_is_awaited(loop: HandLoop, pair: Pair) -> None:
    calls: list[str] = []
    descriptor = pair[0].fileno()
    loop.watch(descriptor, lambda: None, lambda: calls.append("writable"))
    loop.poll()
    assert calls == []
    loop.await_writable(descriptor, True)
    loop.await_writable(descriptor, True)
    loop.poll()
    assert calls == ["writable"]
    loop.await_writable(descriptor, False)
    loop.poll()
    assert calls == ["writable"]


def test_on_writable_is_called_when_a_full_descriptor_has_room_again(loop: HandLoop, pair: Pair) -> None:
    calls: list[str] = []
    loop.watch(pair[0].fileno(), lambda: None, lambda: calls.append("writable"))
    with suppress(BlockingIOError):
        while True:
            pair[0].send(bytes(65536))
    loop.await_writable(pair[0].fileno(), True)
    loop.poll()
    assert calls == []
    with suppress(BlockingIOError):
        while True:
            pair[1].recv(65536)
    loop.poll()
    assert calls == ["writable"]


def test_on_readable_is_not_called_while_writability_is_awaited_alone(loop: HandLoop, pair: Pair) -> None:
    calls: list[str] = []
    loop.watch(pair[0].fileno(), lambda: calls.append("readable"), lambda: calls.append("writable"))
    pair[1].send(b"a")
    loop.await_writable(pair[0].fileno(), True, alone=True)
    loop.poll()
    assert calls == ["writable"]
    loop.await_writable(pair[0].fileno(), False)
    loop.poll()
    assert calls == ["writable", "readable"]


def test_a_forgotten_descriptor_gets_no_more_callbacks(loop: HandLoop, pair: Pair) -> None:
    loop.watch(pair[0].fileno(), lambda: pytest.fail("called"))
    pair[1].send(b"a")
    loop.forget(pair[0].fileno())
    loop.poll()


def test_a_descriptor_forgotten_by_its_own_writer_is_not_read(loop: HandLoop, pair: Pair) -> None:
    descriptor = pair[0].fileno()
    loop.watch(descriptor, lambda: pytest.fail("read"), lambda: loop.forget(descriptor))
    loop.await_writable(descriptor, True)
    pair[1].send(b"a")
    loop.poll()


def test_a_descriptor_forgotten_by_another_in_the_same_turn_is_not_read(loop: HandLoop, pair: Pair) -> None:
    calls: list[int] = []
    descriptors = [each.fileno() for each in pair]

    def forget_the_other(own: int, other: int) -> None:
        calls.append(own)
        loop.forget(other)

    loop.watch(descriptors[0], lambda: forget_the_other(*descriptors))
    loop.watch(descriptors[1], lambda: forget_the_other(*reversed(descriptors)))
    pair[0].send(b"a")
    pair[1].send(b"a")
    loop.poll()
    assert len(calls) == 1


def test_an_event_of_a_closed_descriptor_does_not_reach_the_next_owner_of_its_number(
    loop: HandLoop, pair: Pair
) -> None:
    told: list[str] = []
    first, second = (each.fileno() for each in pair)

    def replace(own: int, other: int) -> None:
        told.append("reported")
        for each in (own, other):
            loop.forget(each)
            loop.watch(each, lambda: told.append("read"), lambda: told.append("written"))
            loop.await_writable(each, True)

    for own, other in ((first, second), (second, first)):
        loop.watch(own, partial(replace, own, other), partial(replace, own, other))
        loop.await_writable(own, True)
    for each in pair:
        each.send(b"a")
    loop.poll()
    assert told == ["reported"]
    loop.poll()
    assert sorted(told) == ["read", "read", "reported", "written", "written"]


def test_callbacks_come_in_the_order_of_their_time_and_then_of_their_request(loop: HandLoop) -> None:
    calls: list[str] = []
    for seconds, name in [(3.0, "third"), (1.0, "first"), (2.0, "second a"), (2.0, "second b"), (9.0, "late")]:
        loop.call_later(seconds, lambda name=name: calls.append(name))  # type: ignore[misc]
    loop.poll()
    assert calls == []
    loop.pass_time(1.0)
    assert calls == ["first"]
    loop.pass_time(2.0)
    assert calls == ["first", "second a", "second b", "third"]


def test_a_callback_may_ask_for_another(loop: HandLoop) -> None:
    calls: list[str] = []
    loop.call_later(1.0, lambda: loop.call_later(1.0, lambda: calls.append("second")))
    loop.pass_time(1.0)
    assert calls == []
    loop.pass_time(1.0)
    assert calls == ["second"]


def test_now_is_the_time_of_the_turn(loop: HandLoop) -> None:
    loop.clock.now += 5
    assert loop.now == 1000.0
    loop.poll()
    assert loop.now == 1005.0


def test_the_loop_wakes_at_the_control_planes_deadline() -> None:
    loop = Loop()
    due = boottime() + 0.05
    late: list[float] = []

    def on_deadline(_: float) -> None:
        late.append(loop.now - due)
        loop.stop()

    loop.run(lambda _: due, on_deadline)
    loop.close()
    assert len(late) == 1
    assert 0 <= late[0] < 1


def test_the_loop_wakes_for_a_callback_before_a_far_deadline() -> None:
    loop = Loop()
    loop.call_later(0.02, loop.stop)
    started = boottime()
    loop.run(lambda _: started + 1000, lambda _: pytest.fail("not due"))
    loop.close()
    assert 0.02 <= boottime() - started < 5


def test_the_loop_serves_until_a_condition_holds_or_the_time_is_over_and_tells_whether_it_still_runs() -> None:
    loop, called = Loop(), list[str]()
    loop.call_later(0.0, lambda: called.append("now"))
    loop.call_later(60.0, lambda: called.append("later"))
    assert loop.serve(lambda: False, 0.01)
    assert called == ["now"]
    loop.call_later(0.01, lambda: called.append("soon"))
    assert loop.serve(lambda: len(called) == 2)
    loop.call_later(0.01, loop.stop)
    assert not loop.serve(lambda: False, 60.0)
    assert not loop.serve(lambda: False, 60.0)
    loop.close()


def test_after_its_end_the_loop_can_be_served_on_with_the_same_deadlines() -> None:
    loop, called = Loop(), list[str]()
    loop.call_later(0.0, loop.stop)
    loop.run(lambda _: NEVER if called else 0.0, lambda _: called.append("deadline"))
    called.clear()
    loop.call_later(0.01, lambda: called.append("later"))
    loop.finish(lambda: len(called) == 2)
    assert called == ["deadline", "later"]
    loop.close()


def test_an_error_that_ends_the_loop_does_not_end_what_it_is_served_on_for(loop: HandLoop, pair: Pair) -> None:
    def fail() -> None:
        raise DeviceError("the device is gone")

    def deadline(_: float) -> float:
        raise DeviceError("the device is gone")

    loop.watch(pair[0].fileno(), fail)
    pair[1].send(b"a")
    with pytest.raises(DeviceError):
        loop.run(deadline, lambda _: None)
    tries: list[int] = []
    loop.finish(lambda: tries.append(1) or len(tries) > 2)  # type: ignore[func-returns-value]
    with pytest.raises(KeyError):
        loop.await_writable(pair[0].fileno(), False)  # it was forgotten, so that it does not take all turns


def test_a_deadline_in_the_past_does_not_starve_descriptors(loop: HandLoop, pair: Pair) -> None:
    got: list[bytes] = []
    loop.watch(pair[0].fileno(), lambda: got.append(pair[0].recv(9)))
    pair[1].send(b"a")
    calls: list[str] = []
    loop.turn(lambda _: loop.clock() - 5, lambda _: calls.append("deadline"))
    assert got == [b"a"]
    assert calls == ["deadline"]


def test_a_deadline_is_handled_at_its_own_time_though_reading_took_long(loop: HandLoop, pair: Pair) -> None:
    def read_slowly() -> None:
        pair[0].recv(9)
        loop.clock.now += 0.03

    loop.watch(pair[0].fileno(), read_slowly)
    pair[1].send(b"a")
    handled: list[float] = []
    began = loop.clock()
    loop.turn(lambda _: began, handled.append)
    assert handled == [began + 0.03]


def test_a_process_may_have_as_many_descriptors_as_the_system_lets_it_and_no_fewer_than_before() -> None:
    former, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(former, 512), hard))
        allow_many_descriptors()
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert allowed == (min(hard, MOST_DESCRIPTORS), hard)
        allow_many_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (former, hard))


def test_changes_are_called_back_once_and_again_only_on_demand(loop: HandLoop, pair: Pair) -> None:
    calls: list[str] = []
    descriptor = pair[0].fileno()
    loop.watch_changes(descriptor, lambda: calls.append("readable"), lambda: calls.append("writable"))
    loop.poll()
    assert calls == ["writable"]
    pair[1].send(b"a")
    loop.poll()
    loop.poll()
    assert calls[-1] == "readable"
    seen = len(calls)
    loop.poll()
    assert len(calls) == seen
    loop.look_again(descriptor)
    loop.poll()
    assert calls[seen:] == ["writable", "readable"]


def test_a_hangup_is_one_change(loop: HandLoop, pair: Pair) -> None:
    calls: list[str] = []
    loop.watch_changes(pair[0].fileno(), lambda: calls.append("readable"), lambda: None)
    loop.poll()
    pair[1].close()
    for _ in range(3):
        loop.poll()
    assert calls == ["readable"]
