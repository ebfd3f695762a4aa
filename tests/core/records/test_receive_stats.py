"""The receiving side's totals, and when they are told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.records.receive_stats import INTERVAL, ReceiveStats
from vpntun.types import NEVER
from vpntun.wire.record import Report


def test_a_report_goes_up_to_the_highest_of_fifty_milliseconds_ago() -> None:
    meter = ReceiveStats()
    meter.record_received(5, 4, 0.0)
    meter.record_received(3, 44, 0.01)
    assert meter.report(0.05) is None
    meter.record_received(7, 10, 0.06)
    meter.record_received(4, 3, 0.07)
    meter.control_received(2)
    meter.record_given_up(1, 7)
    meter.record_given_up(6, 20)
    assert meter.settled == 5
    assert meter.report(0.1, waiting=2) == Report(5, 4, 4 + 44 + 3 + 1 + 7 + 2, 2)
    assert meter.report(0.15) == Report(7, 5, 4 + 44 + 3 + 1 + 7 + 10 + 20, 2)


def test_packets_make_reports_due_until_the_last_of_them_is_told_of() -> None:
    meter = ReceiveStats()
    meter.record_received(0, 1, 10.0)
    meter.record_received(1, 1, 10.04)
    assert meter.deadline == 10.0 + INTERVAL
    assert meter.report(10.05) is None
    assert meter.deadline == 10.05 + INTERVAL
    assert meter.report(10.1) == Report(1, 2, 2, 0)
    assert meter.deadline == NEVER


def test_a_lone_packet_now_and_then_causes_one_report_each() -> None:
    meter = ReceiveStats()
    told = []
    for second in range(10):
        meter.record_received(second, 1, float(second))
        while meter.deadline < second + 1:
            told.append(meter.report(meter.deadline))
    assert [report.highest for report in told if report] == list(range(10))


def test_what_the_other_end_reports_of_a_lone_packet_causes_no_second_report_of_the_next() -> None:
    meter = ReceiveStats()
    told = []
    for second in range(10):
        meter.record_received(2 * second, 1, float(second))
        told.append(meter.report(second + 0.05))
        meter.control_received(2 * second + 1)
        told.append(meter.report(second + 0.1))
        assert meter.deadline == NEVER
    assert [report.highest for report in told if report] == list(range(0, 20, 2))


def test_a_packet_that_came_late_is_told_of_once() -> None:
    meter = ReceiveStats()
    meter.record_received(1, 1, 0.0)
    meter.report(0.05)
    assert meter.report(0.1) == Report(1, 1, 1, 0)
    meter.record_received(0, 1, 1.0)
    assert meter.deadline == 1.0 + INTERVAL
    assert meter.report(1.05) == Report(1, 2, 2, 0)
    assert meter.deadline == NEVER


def test_what_carries_no_packets_never_causes_a_report() -> None:
    meter = ReceiveStats()
    for counter in range(100):
        meter.control_received(counter)
    meter.record_given_up(3, 3)
    assert meter.deadline == NEVER
    meter.record_received(100, 1, 1.0)
    meter.report(1.05)
    meter.control_received(101)
    assert meter.report(1.1) == Report(100, 101, 104, 1)
    assert meter.deadline == NEVER


def test_what_was_seen_besides_is_counted_with_its_record_and_is_no_failure() -> None:
    meter = ReceiveStats()
    meter.record_received(5, 44, 0.0)
    meter.report(0.05)
    meter.record_received(7, 10, 0.06)
    meter.datagrams_received(5, 1)
    meter.datagrams_received(4, 2)
    meter.datagrams_received(6, 4)
    assert meter.report(0.1) == Report(5, 1, 44 + 1 + 2, 0)
    meter.datagrams_received(7, 1)
    assert meter.report(0.15) == Report(7, 2, 44 + 1 + 2 + 10 + 4 + 1, 0)


def test_what_was_seen_besides_never_causes_a_report() -> None:
    meter = ReceiveStats()
    meter.datagrams_received(0, 1)
    assert meter.deadline == NEVER
    assert meter.highest == -1


def test_a_new_session_begins_with_nothing() -> None:
    meter = ReceiveStats()
    meter.record_received(5, 4, 0.0)
    meter.report(0.05)
    meter.reset()
    assert meter.deadline == NEVER
    assert meter.highest == meter.settled == -1
    assert meter.report(0.1) is None


@given(st.permutations(range(40)), st.sets(st.integers(0, 39)), st.sets(st.integers(0, 39)))
def test_a_report_counts_exactly_what_came_of_the_counters_it_goes_up_to(
    order: list[int], lost: set[int], reports: set[int]
) -> None:
    meter = ReceiveStats()
    came: list[int] = []
    for step, counter in enumerate(order):
        if counter not in lost:
            meter.record_received(counter, counter + 1, float(step))
            came.append(counter)
        if step in reports:
            report = meter.report(float(step))
            if report is not None:
                covered = [counter for counter in came if counter <= report.highest]
                assert report.opened == len(covered)
                assert report.datagrams == sum(counter + 1 for counter in covered)
                assert report.highest in came
