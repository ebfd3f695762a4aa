"""What was sent, looked up by counter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.records.sent_log import FIRST_SIZE, MOST, SentLog


def test_a_counter_leads_to_when_it_was_sent_and_all_sent_by_then() -> None:
    sent_log = SentLog()
    sent_log.sent(0, 4, 5000, 1.0)
    sent_log.sent(1, 44, 60_000, 2.0)
    assert (sent_log.time_of(0), sent_log.datagrams_to(0), sent_log.bytes_to(0)) == (1.0, 4, 5000)
    assert (sent_log.time_of(1), sent_log.datagrams_to(1), sent_log.bytes_to(1)) == (2.0, 48, 65_000)
    assert sent_log.knows(1)
    assert not sent_log.knows(2)
    assert not sent_log.knows(-1)


def test_counters_not_told_of_are_single_datagrams_of_no_weight() -> None:
    sent_log = SentLog()
    sent_log.sent(2, 4, 5000, 1.0)
    sent_log.sent(5, 1, 100, 2.0)
    assert [sent_log.datagrams_to(counter) for counter in range(6)] == [1, 2, 6, 7, 8, 9]
    assert [sent_log.bytes_to(counter) for counter in range(6)] == [0, 0, 5000, 5000, 5000, 5100]
    assert sent_log.singles(-1, 5) == 5
    assert sent_log.singles(1, 3) == 1


def test_it_is_known_which_counters_had_packets() -> None:
    sent_log = SentLog()
    sent_log.sent(0, 4, 5000, 1.0)
    sent_log.sent(3, 1, 100, 2.0)
    sent_log.fill(5, 3.0)
    assert [sent_log.had_packets(counter) for counter in range(5)] == [True, False, False, True, False]
    sent_log.begin()
    sent_log.sent(1, 4, 5000, 1.0)
    assert [sent_log.had_packets(counter) for counter in range(2)] == [False, True]


def test_which_had_packets_stays_known_as_the_oldest_are_forgotten() -> None:
    sent_log = SentLog()
    for counter in range(0, 3 * MOST, 2):
        sent_log.sent(counter, 1, 1, 1.0)
    known = range(sent_log.next - MOST + 1, sent_log.next)
    assert [sent_log.had_packets(counter) for counter in known] == [counter % 2 == 0 for counter in known]


def test_what_is_too_long_ago_is_not_known() -> None:
    sent_log = SentLog()
    for counter in range(MOST + 10):
        sent_log.sent(counter, 1, 1, 1.0)
    assert not sent_log.knows(9)
    assert sent_log.knows(10)
    assert sent_log.singles(-1, MOST + 9) == MOST - 1
    sent_log.sent(10 * MOST, 1, 1, 2.0)
    assert sent_log.datagrams == 10 * MOST + 1
    assert sent_log.datagrams_to(10 * MOST - 1) == 10 * MOST
    sent_log.begin()
    assert not sent_log.knows(0)
    assert (sent_log.next, sent_log.datagrams, sent_log.bytes) == (0, 0, 0)


def room_of(sent_log: SentLog) -> int:
    return len(sent_log._times)


def test_what_is_forgotten_is_not_known_and_leaves_its_places_to_others() -> None:
    sent_log = SentLog()
    for counter in range(20 * FIRST_SIZE):
        sent_log.sent(counter, 1, 100, float(counter))
        sent_log.forget_below(counter - FIRST_SIZE // 2)
    assert room_of(sent_log) == FIRST_SIZE
    oldest = 20 * FIRST_SIZE - 1 - FIRST_SIZE // 2
    assert [sent_log.knows(counter) for counter in (oldest - 1, oldest, oldest + 1)] == [False, True, True]


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(0, 150)), min_size=1, max_size=20))
def test_what_is_not_forgotten_is_known_however_often_the_room_has_grown(steps: list[tuple[int, int]]) -> None:
    sent_log = SentLog()
    oldest = 0
    for sent, forgotten in steps:
        for counter in range(sent_log.next, sent_log.next + sent):
            sent_log.sent(counter, 1, 100, float(counter))
        oldest = min(oldest + forgotten, sent_log.next - 1)
        sent_log.forget_below(oldest)
        for counter in range(oldest, sent_log.next):
            assert sent_log.knows(counter)
            assert (sent_log.time_of(counter), sent_log.bytes_to(counter)) == (counter, 100 * (counter + 1))
        assert sent_log.singles(oldest, sent_log.next - 1) == sent_log.next - 1 - oldest


def test_it_takes_as_much_room_as_was_sent_and_not_reported() -> None:
    sent_log = SentLog()
    assert room_of(sent_log) == 0
    sent_log.sent(0, 1, 100, 1.0)
    assert room_of(sent_log) == FIRST_SIZE
    for counter in range(1, 2 * MOST):
        sent_log.sent(counter, 1, 100, 1.0)
        assert room_of(sent_log) <= max(FIRST_SIZE, min(MOST, 2 * counter))
    assert room_of(sent_log) == MOST
    sent_log.begin()
    assert room_of(sent_log) == 0


@pytest.mark.parametrize("first", [0, 1, FIRST_SIZE - 1, FIRST_SIZE, FIRST_SIZE + 1, MOST, MOST + 1, 5 * MOST])
def test_it_may_begin_anywhere(first: int) -> None:
    sent_log = SentLog()
    sent_log.fill(first, 1.0)
    sent_log.fill(first, 1.0)
    sent_log.sent(first, 4, 5000, 2.0)
    assert (sent_log.time_of(first), sent_log.datagrams_to(first), sent_log.bytes_to(first)) == (2.0, first + 4, 5000)
    if first:
        assert (sent_log.time_of(first - 1), sent_log.datagrams_to(first - 1)) == (1.0, first)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 44)), min_size=1, max_size=50))
def test_totals_are_exact(records: list[tuple[int, int]]) -> None:
    sent_log = SentLog()
    sizes: list[int] = []
    for control, datagrams in records:
        sizes += [1] * control + [datagrams]
        sent_log.sent(len(sizes) - 1, datagrams, 1400 * datagrams, 1.0)
    assert [sent_log.datagrams_to(counter) for counter in range(len(sizes))] == [
        sum(sizes[: counter + 1]) for counter in range(len(sizes))
    ]
    assert sent_log.singles(-1, len(sizes) - 1) == sizes.count(1)
    with_packets = sum(sent_log.had_packets(counter) for counter in range(len(sizes)))
    assert with_packets == len(records)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 64), st.integers(33, 1472), st.integers(1, 33)), max_size=30)
)
def test_single_records_told_of_together_are_as_if_told_of_one_by_one(
    batches: list[tuple[int, int, int, int]],
) -> None:
    together, one_by_one = SentLog(), SentLog()
    counter = 0
    for gap, count, each, last in batches:
        counter += gap
        together.sent_singles(counter, count, each, each * (count - 1) + last, 1.0)
        for index in range(count):
            one_by_one.sent(counter + index, 1, each if index < count - 1 else last, 1.0)
        counter += count
    assert (together.next, together.datagrams, together.bytes) == (counter, one_by_one.datagrams, one_by_one.bytes)
    for known in range(counter):
        assert together.bytes_to(known) == one_by_one.bytes_to(known)
        assert together.datagrams_to(known) == one_by_one.datagrams_to(known)
        assert together.time_of(known) == 1.0
    assert together.short(-1, counter - 1, 1472) == counter
    assert together.short(-1, counter - 1, 0) == sum(gap for gap, *_ in batches)


def test_a_batch_may_lie_across_the_end_of_the_room() -> None:
    sent_log = SentLog()
    sent_log.fill(MOST - 10, 1.0)
    sent_log.sent_singles(MOST - 10, 20, 1000, 19_100, 2.0)
    assert (sent_log.bytes_to(MOST + 8), sent_log.bytes_to(MOST + 9)) == (19_000, 19_100)
    assert sent_log.short(MOST - 11, MOST + 9, 100) == 1
