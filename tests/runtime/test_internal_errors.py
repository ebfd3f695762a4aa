"""Unexpected exceptions: each ends one callback and is counted and logged, and the loop keeps running."""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.conftest import ExpectedErrors
from tests.datapath.ends import ALICE, BOB, CAROL, End, Wire, ipv4
from tests.machine import Clock, HandLoop
from vpntun.core.queue import Entry, PacketQueue
from vpntun.errors import DeviceError
from vpntun.link.link import Link
from vpntun.runtime.internal_errors import MOST_TRACEBACKS, InternalErrors
from vpntun.runtime.loop import MOST_FAILURES_IN_A_ROW, SECONDS_AFTER_FAILURES
from vpntun.runtime.schedule import REST, Schedule

NEVER = float("inf")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


Pair = tuple[socket.socket, socket.socket]


def buggy() -> None:
    raise IndexError("a bug")


def gone() -> None:
    raise DeviceError("the device has gone")


def by_reading(loop: HandLoop, pair: Pair, callback: Callable[[], None]) -> None:
    def read() -> None:
        pair[0].recv(1)
        callback()

    loop.watch(pair[0].fileno(), read)
    pair[1].send(b".")
    loop.poll()
    loop.forget(pair[0].fileno())


def by_writing(loop: HandLoop, pair: Pair, callback: Callable[[], None]) -> None:
    loop.watch(pair[0].fileno(), lambda: None, callback)
    loop.await_writable(pair[0].fileno(), True)
    loop.poll()
    loop.forget(pair[0].fileno())


def by_a_timer(loop: HandLoop, pair: Pair, callback: Callable[[], None]) -> None:
    loop.call_later(0.0, callback)
    loop.poll()


def by_a_deadline(loop: HandLoop, pair: Pair, callback: Callable[[], None]) -> None:
    loop.turn(lambda now: now, lambda now: callback())


def by_asking_for_the_deadline(loop: HandLoop, pair: Pair, callback: Callable[[], None]) -> None:
    pair[1].send(b".")  # so that the turn does not wait
    loop.watch(pair[0].fileno(), lambda: None)

    def deadline(now: float) -> float:
        callback()
        return NEVER

    loop.turn(deadline, lambda now: None)
    loop.forget(pair[0].fileno())


WAYS = pytest.mark.parametrize(
    "way", [by_reading, by_writing, by_a_timer, by_a_deadline, by_asking_for_the_deadline], ids=lambda way: way.__name__
)
Way = Callable[[HandLoop, Pair, Callable[[], None]], None]


@WAYS
def test_a_bug_in_any_callback_is_counted_and_the_loop_goes_on(
    loop: HandLoop, pair: Pair, way: Way, expected_errors: ExpectedErrors
) -> None:
    way(loop, pair, buggy)
    assert loop.internal_errors.count == 1
    called: list[int] = []
    way(loop, pair, lambda: called.append(1))
    assert called
    assert loop.internal_errors.count == 1
    assert expected_errors.take() == ["IndexError('a bug')"]


@WAYS
def test_a_vpntun_error_ends_the_loop(loop: HandLoop, pair: Pair, way: Way) -> None:
    with pytest.raises(DeviceError):
        way(loop, pair, gone)
    assert loop.internal_errors.count == 0


def test_a_connection_that_caused_a_bug_is_closed(loop: HandLoop, pair: Pair, expected_errors: ExpectedErrors) -> None:
    closed: list[bool] = []

    def close() -> None:
        loop.forget(pair[0].fileno())
        closed.append(True)

    loop.watch(pair[0].fileno(), buggy, on_failure=close)
    pair[1].send(b".")
    loop.poll()
    loop.poll()
    assert closed == [True]
    assert len(expected_errors.take()) == 1


def test_a_callback_that_keeps_failing_does_not_take_the_whole_processor(
    loop: HandLoop, pair: Pair, expected_errors: ExpectedErrors
) -> None:
    loop.watch(pair[0].fileno(), buggy)
    pair[1].send(b".")
    for _ in range(100):
        loop.poll()
    assert loop.internal_errors.count == MOST_FAILURES_IN_A_ROW
    loop.pass_time(SECONDS_AFTER_FAILURES)
    loop.poll()
    assert loop.internal_errors.count == MOST_FAILURES_IN_A_ROW + 1
    expected_errors.take()
    loop.forget(pair[0].fileno())


class Buggy:
    """Timed object that is always due, and whose handler fails."""

    def __init__(self) -> None:
        self.touched = False
        self.deadline = 3.0
        self.tried = 0

    def handle_deadline(self) -> None:
        self.tried += 1
        raise IndexError("a bug")


class Due(Buggy):
    """Timed object that is due once."""

    def handle_deadline(self) -> None:
        self.tried += 1
        self.deadline = NEVER


def test_a_link_that_fails_rests_for_a_second_and_keeps_no_other_from_its_deadline(
    expected_errors: ExpectedErrors,
) -> None:
    schedule, buggy, due = Schedule(InternalErrors()), Buggy(), Due()
    for timed in (buggy, due):
        schedule.touch(timed)
    assert schedule.deadline(3.0) == 3.0
    schedule.handle(3.0)
    assert (buggy.tried, due.tried) == (1, 1)
    for _ in range(5):
        schedule.touch(buggy)
        assert schedule.deadline(3.0) == 3.0 + REST
        schedule.handle(3.0)
    assert buggy.tried == 1
    schedule.handle(3.0 + REST)
    assert buggy.tried == 2
    schedule.forget(buggy)
    assert schedule.deadline(9.0) == NEVER
    expected_errors.take()


def test_tracebacks_are_logged_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture, expected_errors: ExpectedErrors
) -> None:
    clock, drops = Clock(), Counter[str]()
    errors = InternalErrors(drops, clock)

    def fail(times: int) -> None:
        for _ in range(times):
            try:
                buggy()
            except IndexError:
                errors.note()

    with caplog.at_level(logging.ERROR):
        fail(50)
        assert drops == {"internal error": 50}
        assert len(caplog.records) == MOST_TRACEBACKS
        assert "IndexError: a bug" in caplog.text
        clock.now += 10
        fail(1)
        assert f"({50 - MOST_TRACEBACKS} more since the last such line)" in caplog.text
    expected_errors.take()


def test_a_bug_in_one_recovery_function_does_not_stop_the_others(expected_errors: ExpectedErrors) -> None:
    errors = InternalErrors()
    recovered: list[str] = []
    errors.recover_by(buggy, lambda: recovered.append("the rest"))
    try:
        buggy()
    except IndexError:
        errors.note()
    assert errors.count == 1
    assert recovered == ["the rest"]
    assert len(expected_errors.take()) == 2


class Faulty(Due):
    """Timed object whose deadline raises until `fails` is cleared."""

    def __init__(self) -> None:
        self.fails = True
        super().__init__()

    @property
    def deadline(self) -> float:
        if self.fails:
            raise IndexError("a bug")
        return 3.0 if not self.tried else NEVER

    @deadline.setter
    def deadline(self, _: float) -> None:
        pass


def test_a_link_whose_deadline_fails_keeps_no_other_from_its_own(expected_errors: ExpectedErrors) -> None:
    schedule, faulty, due = Schedule(InternalErrors()), Faulty(), Due()
    for timed in (faulty, due):
        schedule.touch(timed)
    assert schedule.deadline(2.0) == 2.0 + REST
    schedule.handle(3.0)
    assert due.tried == 1
    faulty.fails = False
    schedule.handle(schedule.deadline(4.0))
    assert faulty.tried == 1
    expected_errors.take()


def test_a_failing_descriptor_that_has_hung_up_is_ignored_for_a_while_too(
    loop: HandLoop, pair: Pair, expected_errors: ExpectedErrors
) -> None:
    loop.watch(pair[0].fileno(), buggy)
    pair[1].close()
    for _ in range(100):
        loop.poll()
    assert loop.internal_errors.count == MOST_FAILURES_IN_A_ROW
    loop.await_writable(pair[0].fileno(), True)
    loop.forget(pair[0].fileno())
    loop.pass_time(SECONDS_AFTER_FAILURES)
    loop.poll()
    expected_errors.take()


class FailsOnce(PacketQueue):
    """Packet queue whose first `take` fails."""

    failed = False

    def take(self, now: float) -> Entry | None:
        if not self.failed:
            self.failed = True
            buggy()
        return super().take(now)


def test_a_queue_that_a_bug_kept_from_being_drained_is_drained_later(loop: HandLoop) -> None:
    alice, bob = End(ALICE, loop), End(BOB, loop)
    link = alice.know(BOB.public)
    bob.know(ALICE.public)
    wire = Wire(alice, bob)
    wire.shake_hands()
    link.queue = FailsOnce()
    wire.to_right.is_ready = False
    packet = ipv4("10.0.0.1", "10.0.0.2", b"waiting")
    alice.send(packet)
    wire.to_right.opens()
    with pytest.raises(IndexError):
        alice.bundler.drain_all()
    alice.bundler.drain_all()
    wire.run()
    assert bob.device.packets == [packet]
    for end in (alice, bob):
        end.close()


def test_packets_that_a_bug_left_half_sent_are_not_sent_to_another_peer(
    loop: HandLoop, expected_errors: ExpectedErrors
) -> None:
    """An exception leaves a record for Bob half built; the next packets are for Carol."""
    alice, bob, carol = End(ALICE, loop), End(BOB, loop), End(CAROL, loop)
    to_bob, to_carol = alice.know(BOB.public, ["10.0.2.0/24"]), alice.know(CAROL.public, ["10.0.3.0/24"])
    for end in (bob, carol):
        end.know(ALICE.public)
    wires = Wire(alice, bob), Wire(alice, carol, " carol")
    for wire in wires:
        wire.shake_hands()

    def begin_and_fail(link: Link) -> None:
        alice.bundler.turn_to(link)
        alice.bundler.add(memoryview(bytearray(ipv4("10.0.1.1", "10.0.2.1", b"secret"))), 0)
        buggy()

    for link in (to_bob, to_carol):
        loop.call_later(0.0, partial(begin_and_fail, link))
        loop.poll()
    packet = ipv4("10.0.1.1", "10.0.3.1", b"hello")
    alice.send(packet)
    for wire in wires:
        wire.run()
    assert bob.device.packets == []
    assert carol.device.packets == [packet]
    assert len(expected_errors.take()) == 2
    for end in (alice, bob, carol):
        end.close()
