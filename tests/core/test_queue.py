"""The link's queue: its bounds, and CoDel at its head."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core import queue as module
from vpntun.core.queue import FEW, INTERVAL, MOST_BYTES, MOST_ENTRIES, TARGET, UNKNOWN_RATE_BYTES, PacketQueue


def test_packets_leave_in_order_with_their_segment_and_arrival() -> None:
    queue = PacketQueue()
    assert queue.push(b"one", 1448, 1.0) == 0
    assert queue.push(b"three", 0, 2.0) == 0
    assert (len(queue), queue.size) == (2, 8)
    assert queue.pop_entry() == (b"one", 1448, 1.0)
    assert queue.pop_entry()[0] == b"three"
    assert (len(queue), queue.size) == (0, 0)
    with pytest.raises(IndexError):
        queue.pop_entry()[0]


def test_while_the_rate_is_unknown_the_queue_is_bounded_and_drops_the_oldest() -> None:
    queue = PacketQueue()
    dropped = sum(queue.push(number.to_bytes(2, "big") * 500) for number in range(4000))
    assert dropped == queue.dropped == 4000 - UNKNOWN_RATE_BYTES // 1000
    assert queue.size <= UNKNOWN_RATE_BYTES
    assert queue.pop_entry()[0][:2] == dropped.to_bytes(2, "big")


def test_ten_milliseconds_of_the_rate_may_wait_and_always_a_few_packets() -> None:
    queue = PacketQueue()
    queue.follow(10e6)
    for _ in range(1000):
        queue.push(bytes(1000))
    assert queue.size == 100_000
    queue.follow(1000.0)
    queue.push(bytes(1000))
    assert len(queue) == FEW
    queue.follow(0.0)
    for _ in range(4000):
        queue.push(bytes(1000))
    assert queue.size == UNKNOWN_RATE_BYTES // 1000 * 1000


def test_the_hard_bounds_hold_at_any_rate() -> None:
    queue = PacketQueue()
    queue.follow(1e12)
    for _ in range(100):
        queue.push(bytes(65535))
    assert MOST_BYTES - 65535 < queue.size <= MOST_BYTES
    queue.clear()
    for _ in range(MOST_ENTRIES + 10):
        queue.push(b"x")
    assert len(queue) == MOST_ENTRIES


def test_clearing_returns_how_many_were_dropped() -> None:
    queue = PacketQueue()
    queue.push(b"a")
    queue.push(b"b")
    assert queue.clear() == 2
    assert (len(queue), queue.size, queue.dropped) == (0, 0, 0)
    assert queue.take(1.0) is None


def run(queue: PacketQueue, arrivals: float, departures: float, seconds: float, size: int = 1400) -> list[float]:
    """Push and take at these rates, in packets per second; return the time that each packet taken had waited."""
    listen_on = []
    queue.follow(1e9)
    pushed = taken = 0
    for tick in range(int(seconds * 10_000)):
        now = 1.0 + tick / 10_000
        while pushed < tick / 10_000 * arrivals:
            queue.push(bytes(size), 0, now)
            pushed += 1
        while taken < tick / 10_000 * departures:
            taken += 1
            entry = queue.take(now)
            if entry is not None:
                listen_on.append(now - entry[2])
    return listen_on


def test_a_queue_that_keeps_up_loses_nothing() -> None:
    queue = PacketQueue()
    run(queue, 4000, 5000, 5.0)
    assert queue.dropped == 0


def test_a_burst_passes_unharmed() -> None:
    queue = PacketQueue()
    queue.follow(1e9)
    for _ in range(400):
        queue.push(bytes(1400), 0, 1.0)
    assert sum(queue.take(1.0 + number / 5000) is not None for number in range(400)) == 400
    assert queue.dropped == 0


def test_a_standing_queue_is_dropped_from_ever_faster_and_the_bound_limits_the_rest() -> None:
    queue = PacketQueue()
    run(queue, 5500, 5000, 1.0)
    early = queue.dropped
    assert 0 < early < 30
    run(queue, 5500, 5000, 30.0)
    assert queue.dropped > 20 * early
    assert early < queue.late <= queue.dropped


def test_a_queue_of_one_superpacket_is_left_alone() -> None:
    queue = PacketQueue()
    now = 1.0
    for _ in range(200):
        queue.push(bytes(60_000), 1448, now)
        now += 0.05
        assert queue.take(now) is not None
    assert queue.dropped == 0


def test_the_first_drop_comes_after_an_interval_of_late_packets_and_takes_one() -> None:
    queue = PacketQueue()
    queue.follow(1e9)
    for number in range(200):
        queue.push(number.to_bytes(2, "big") * 700, 0, 1.0)
    late = 1.0 + 2 * TARGET
    assert queue.take(late) is not None
    assert queue.take(late + 0.99 * INTERVAL) is not None
    assert queue.dropped == 0
    entry = queue.take(late + INTERVAL)
    assert entry is not None
    assert entry[0][:2] == (3).to_bytes(2, "big")
    assert queue.dropped == queue.late == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("push"), st.integers(0, 65535), st.floats(0, 0.05)),
            st.tuples(st.just("take"), st.just(0), st.floats(0, 0.05)),
            st.tuples(st.just("follow"), st.integers(0, 10**9), st.floats(0, 0.05)),
        ),
        max_size=200,
    )
)
def test_every_packet_is_taken_dropped_or_waits_and_the_size_is_theirs(steps: list[tuple[str, int, float]]) -> None:
    queue = PacketQueue()
    now, pushed, taken, last = 1.0, 0, 0, -1.0
    for what, number, pause in steps:
        now += pause
        if what == "push":
            queue.push(bytes(number), 0, now)
            pushed += 1
        elif what == "follow":
            queue.follow(number)
        else:
            entry = queue.take(now)
            if entry is None:
                assert len(queue) == 0
            else:
                assert entry[2] >= last
                last = entry[2]
                taken += 1
        assert pushed == taken + queue.dropped + len(queue)
        assert queue.size <= module.MOST_BYTES
    left = queue.size
    assert left == sum(len(queue.pop_entry()[0]) for _ in range(len(queue)))
