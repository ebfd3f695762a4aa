"""The span over simulated paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.records.path import MBIT, PAYLOAD, SINGLE, Simulation
from vpntun.core.records.receive_stats import INTERVAL
from vpntun.core.records.span import LARGEST_SEND, MOST, REPORTS_BEFORE_LONG, REPORTS_OF_A_SECOND, Span
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import LARGEST_RECORD, PARITY_SIZE, Report

LOAD = 80 * MBIT


def long_records(simulation: Simulation | None = None) -> Simulation:
    """A path on which this program has been the bottleneck for two seconds."""
    simulation = simulation or Simulation()
    simulation.run(2.0, LOAD, saturated=True)
    return simulation


# Single records


def test_it_begins_with_a_datagram_a_record_and_the_record_fills_it() -> None:
    span = Span(PAYLOAD, 0.0)
    assert span.span == 1
    assert span.largest_record + DATA_OVERHEAD == PAYLOAD


def test_a_record_leaves_room_for_its_parity_where_records_are_protected() -> None:
    span = Span(PAYLOAD, 0.0)
    span.protection.possible = True
    span.path(PAYLOAD, 1.0)
    assert span.largest_record == SINGLE - PARITY_SIZE


def test_whatever_is_lost_of_single_records_they_stay_as_they_are() -> None:
    simulation = Simulation(loss=0.05)
    simulation.run(3.0, LOAD)
    simulation.run(1.0, LOAD, saturated=True)
    assert set(simulation.spans) == {1}
    assert simulation.span.estimator.loss == pytest.approx(0.05, rel=0.3)


# Long records


def test_records_become_long_when_four_reports_in_a_row_found_this_program_to_be_the_bottleneck() -> None:
    simulation = long_records()
    began = simulation.spans.index(MOST) / 1000
    assert set(simulation.spans) == {1, MOST}
    assert began == pytest.approx(2 * simulation.delay + (REPORTS_BEFORE_LONG + 2) * INTERVAL, abs=0.03)
    assert simulation.span.largest_record == LARGEST_SEND - MOST * 16 - 16
    assert simulation.span.estimator.rate == pytest.approx(LOAD, rel=0.1)


def test_where_probes_come_back_at_once_one_report_is_enough() -> None:
    simulation, near = Simulation(1000 * MBIT), Simulation(1000 * MBIT)
    near.span.estimator.delay.note_probe(0.001, near.now)
    assert until_long(near) <= until_long(simulation) - (REPORTS_BEFORE_LONG - 1) * INTERVAL * 1000 + 20


def test_a_report_of_the_path_between_begins_the_row_anew() -> None:
    simulation = Simulation()
    for _ in range(8):
        simulation.run((REPORTS_BEFORE_LONG - 1) * INTERVAL, LOAD, saturated=True)
        simulation.run(3 * INTERVAL, LOAD)
    assert set(simulation.spans) == {1}


def test_without_a_waiting_device_they_stay_single() -> None:
    simulation = Simulation()
    simulation.run(3.0, LOAD)
    assert set(simulation.spans) == {1}


def test_a_loop_that_sleeps_most_of_the_time_is_no_bottleneck_though_packets_come_in_clumps() -> None:
    simulation = Simulation()
    for _ in range(2000):
        simulation.run(0.001, LOAD)
        simulation.span.bottleneck.backlogged += 10
    assert set(simulation.spans) == {1}


def test_a_slow_path_whose_queue_is_in_the_path_and_not_here_keeps_them_single() -> None:
    simulation = Simulation(30 * MBIT, queue=0.03)
    simulation.run(3.0, 33 * MBIT)
    assert set(simulation.spans) == {1}


def until_long(simulation: Simulation) -> int:
    """Milliseconds of a load that this program limits until records are long."""
    former = len(simulation.spans)
    simulation.run(2.0, LOAD, saturated=True)
    return simulation.spans[former:].index(MOST)


def test_a_second_of_long_records_is_remembered_so_that_a_flow_after_a_rest_has_them_at_once() -> None:
    simulation = Simulation(1000 * MBIT)
    until_long(simulation)
    simulation.run(REPORTS_OF_A_SECOND * INTERVAL, LOAD, saturated=True)
    simulation.rest(1.5)
    simulation.span.bottleneck.slept += 1.5
    former = len(simulation.spans)
    simulation.run(0.1, LOAD, saturated=True)
    assert set(simulation.spans[former:]) == {MOST}


def test_a_loss_after_a_rest_ends_long_records_that_were_remembered() -> None:
    simulation = long_records()
    simulation.rest(1.5)
    simulation.loss = 0.01
    simulation.run(1.0, LOAD)
    assert simulation.span.span == 1


def test_control_messages_between_are_not_taken_for_losses() -> None:
    simulation = Simulation()
    for _ in range(200):
        simulation.control()
        simulation.run(0.01, LOAD, saturated=True)
    assert simulation.span.span == MOST
    assert simulation.span.estimator.loss == 0.0


def test_reports_of_a_fast_path_with_a_long_round_trip_are_of_use() -> None:
    simulation = Simulation(delay=0.5)
    simulation.run(2.0, 240 * MBIT)
    assert simulation.span.estimator.loss_is_known
    assert simulation.span.estimator.rate == pytest.approx(240 * MBIT, rel=0.1)


def test_the_loss_is_known_once_it_was_measured_on_this_path() -> None:
    simulation = Simulation()
    assert not simulation.span.estimator.loss_is_known
    simulation.run(3.0, LOAD)
    assert simulation.span.estimator.loss_is_known
    simulation.span.moved(simulation.now)
    assert not simulation.span.estimator.loss_is_known


def test_a_percent_of_lost_datagrams_ends_long_records_and_it_takes_four_reports_again_when_it_is_over() -> None:
    simulation = long_records()
    simulation.loss = 0.02
    simulation.run(4.0, LOAD, saturated=True)
    assert set(simulation.spans[-1000:]) == {1}
    simulation.loss = 0.0
    simulation.run(6.0, LOAD, saturated=True)
    assert simulation.span.span == MOST


def test_a_thousandth_of_lost_datagrams_keeps_records_short() -> None:
    simulation = Simulation(loss=0.001)
    simulation.run(8.0, LOAD, saturated=True)
    later = simulation.spans[4000:]
    assert sum(later) <= 10 * len(later)


def test_reordering_is_no_loss() -> None:
    simulation = long_records(Simulation(jitter=0.03))
    assert simulation.span.span == MOST
    assert simulation.span.estimator.loss == 0.0


def test_a_second_without_a_report_ends_long_records() -> None:
    simulation = long_records()
    simulation.silent = True
    simulation.run(1.5, LOAD, saturated=True)
    assert simulation.span.span == 1


def test_idleness_ends_long_records_of_less_than_a_second() -> None:
    simulation = Simulation()
    simulation.run(0.6, LOAD, saturated=True)
    assert simulation.span.span == MOST
    simulation.rest(1.5)
    assert simulation.now >= simulation.span.deadline
    simulation.run(0.001, 1400.0)
    assert simulation.span.span == 1


def test_a_new_session_keeps_what_was_learned() -> None:
    simulation = long_records()
    simulation.new_session()
    simulation.run(1.0, LOAD, saturated=True)
    assert set(simulation.spans[-1000:]) == {MOST}


def test_another_path_begins_anew() -> None:
    simulation = long_records(Simulation(loss=0.001))
    simulation.span.moved(simulation.now)
    assert simulation.span.span == 1
    assert simulation.span.estimator.loss == simulation.span.estimator.rate == 0.0


def test_one_send_holds_no_more_than_the_kernel_takes() -> None:
    for payload, most in ((1200, MOST), (1472, MOST), (8972, 8), (65_507, 1)):
        span = long_records(Simulation(payload=payload)).span
        assert span.span == most
        message = span.largest_record + 32
        assert datagrams_for(message, payload) == most
        assert message + (most - 1) * 16 <= max(payload, LARGEST_SEND)


# Paths that drop what they do not know


def blocked(simulation: Simulation) -> Simulation:
    """Let bursts vanish, while a datagram of their length is echoed."""
    simulation.drops_bursts = True
    while not simulation.span.black_hole.is_seen(simulation.now):
        simulation.send(500)
        simulation.send(4000)
        simulation.rest(0.01)
    simulation.span.length_passes(simulation.now)
    return simulation


def test_a_middlebox_that_drops_bursts_leaves_single_records() -> None:
    simulation = blocked(long_records())
    assert not simulation.span.black_hole.passes
    assert simulation.span.span == 1


def test_records_are_not_long_at_once_when_a_middlebox_lets_bursts_pass_again() -> None:
    simulation = blocked(long_records())
    simulation.drops_bursts = False
    simulation.span.black_hole.burst_echoed()
    simulation.span.handle_deadline(simulation.now)
    assert simulation.span.span == 1


def test_bursts_that_arrive_go_on_though_their_reports_take_longer_than_a_second() -> None:
    simulation = Simulation(delay=0.6)
    passing = 0
    for _ in range(200):
        simulation.payload = PAYLOAD if simulation.span.black_hole.passes else 65_507  # blocked: IP cuts, and not we
        simulation.send(2000)
        simulation.rest(0.1)
        if simulation.now >= simulation.span.deadline:
            simulation.span.handle_deadline(simulation.now)
        passing += simulation.span.black_hole.passes
    assert passing > 180


def test_a_black_hole_is_seen_and_not_taken_for_loss() -> None:
    simulation = long_records()
    simulation.drops_longer_than = 1400
    for _ in range(60):
        simulation.send(500)
        simulation.send(40_000)
        simulation.rest(0.02)
        if simulation.now >= simulation.span.deadline:
            simulation.span.handle_deadline(simulation.now)
    assert simulation.span.black_hole.is_seen(simulation.now)
    assert simulation.span.black_hole.passes
    simulation.payload = 1200
    simulation.span.path(1200, simulation.now)
    assert not simulation.span.black_hole.is_seen(simulation.now)
    simulation.run(0.5, 80 * MBIT)
    assert not simulation.span.black_hole.is_seen(simulation.now)
    assert simulation.span.estimator.loss == 0


def mixed(simulation: Simulation, seconds: float, long: int = 1400) -> None:
    """Long and short single records by turns."""
    for _ in range(int(seconds / 0.02)):
        simulation.send(100)
        simulation.send(long)
        simulation.rest(0.02)


def test_a_black_hole_for_single_datagrams_is_seen_while_short_ones_pass() -> None:
    simulation = Simulation()
    mixed(simulation, 3.0)
    assert not simulation.span.black_hole.is_seen(simulation.now)
    simulation.drops_longer_than = 1400
    mixed(simulation, 1.5)
    assert simulation.span.black_hole.is_seen(simulation.now)
    simulation.span.length_passes(simulation.now)
    assert not simulation.span.black_hole.is_seen(simulation.now)
    assert simulation.span.black_hole.passes, "no burst was sent"
    simulation.drops_longer_than = 65_535
    mixed(simulation, 3.0)
    assert not simulation.span.black_hole.is_seen(simulation.now)


def test_short_records_alone_are_never_taken_for_a_black_hole() -> None:
    simulation = Simulation(loss=0.3)
    mixed(simulation, 5.0, long=1168)
    assert not simulation.span.black_hole.is_seen(simulation.now)


def test_probes_that_are_lost_are_not_losses() -> None:
    simulation = Simulation()
    for _ in range(100):
        simulation.span.probed(simulation._counter)
        simulation._counter += 1
        simulation.run(0.02, 20 * MBIT, saturated=True)
    assert simulation.span.span == MOST


# Paths that delay


def test_where_the_path_delays_a_record_takes_three_milliseconds_of_its_rate() -> None:
    simulation = Simulation(3 * MBIT, queue=0.2)
    simulation.run(0.2, 1 * MBIT)
    simulation.run(3.0, 3.2 * MBIT)
    assert simulation.span.largest_record == SINGLE, "but never less than a datagram holds"
    simulation = Simulation(100 * MBIT, queue=0.2)
    simulation.run(1.0, 20 * MBIT, saturated=True)
    assert simulation.span.span == MOST
    simulation.run(3.0, 104 * MBIT, saturated=True)
    assert simulation.span.largest_record == pytest.approx(0.003 * 100 * MBIT, rel=0.15)
    simulation.rest(2.0)
    simulation.span.handle_deadline(simulation.now)
    assert simulation.span.largest_record == SINGLE


def test_one_record_that_was_late_is_no_delay_and_a_queue_that_grows_is() -> None:
    simulation = Simulation(20 * MBIT, queue=0.2)
    simulation.run(1.0, 2 * MBIT)
    simulation.delay += 0.006
    simulation.run(0.04, 2 * MBIT)
    simulation.delay -= 0.006
    simulation.run(0.5, 2 * MBIT)
    assert not simulation.span.estimator.path_rate(simulation.now)
    simulation.run(1.0, 21 * MBIT)
    assert simulation.span.estimator.path_rate(simulation.now) == pytest.approx(20 * MBIT, rel=0.15)


def test_a_path_that_has_become_longer_is_what_it_is_within_a_minute() -> None:
    simulation = Simulation()
    simulation.run(1.0, 1 * MBIT)
    simulation.delay += 0.05
    simulation.run(1.0, 1 * MBIT)
    assert simulation.span.estimator.path_rate(simulation.now)
    simulation.run(62.0, 1 * MBIT)
    assert not simulation.span.estimator.path_rate(simulation.now)


def test_little_traffic_on_a_fast_path_does_not_shorten_records() -> None:
    simulation = Simulation()
    simulation.run(5.0, 1 * MBIT)
    assert simulation.span.largest_record == SINGLE


def test_a_stream_takes_the_longest_records_there_are() -> None:
    span = Span(0, 0.0)
    assert span.largest_record == LARGEST_RECORD
    span.path(PAYLOAD, 0.0)
    assert span.largest_record == SINGLE
    span.path(0, 0.0)
    assert span.largest_record == LARGEST_RECORD


def test_a_slow_stream_takes_records_of_three_milliseconds() -> None:
    simulation = Simulation(20 * MBIT, queue=10.0, payload=0)
    simulation.run(0.2, 1 * MBIT)
    simulation.run(2.0, 22 * MBIT)
    assert simulation.span.largest_record == pytest.approx(0.003 * 20 * MBIT, rel=0.25)


# Whatever the peer says


def test_a_report_of_what_was_never_sent_is_ignored() -> None:
    simulation = Simulation()
    simulation.run(0.03, 100 * MBIT)
    before = simulation.span.span
    for report in (Report(2**64 - 1, 5, 5, 0), Report(0, 5, 5, 0), Report(1, 0, 0, 0)):
        simulation.span.reported(report, 3, simulation.now)
    assert simulation.span.span == before


numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**64 - 1))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("report"), numbers, numbers, numbers),
            st.tuples(st.just("send"), st.integers(1, 3), st.integers(1, 44), st.integers(0, 65535)),
            st.tuples(st.just("singles"), st.integers(1, 3), st.integers(1, 64), st.integers(64, 65535)),
            st.tuples(st.just("wait"), st.integers(0, 3), st.just(0), st.just(0)),
            st.tuples(st.just("path"), st.sampled_from([0, 1200, 1472, 8972]), st.just(0), st.just(0)),
        )
    )
)
def test_a_hostile_peers_reports_never_lead_beyond_the_bounds(steps: list[tuple[str, int, int, int]]) -> None:
    now, counter = 0.0, 0
    span = Span(PAYLOAD, now)
    for what, one, two, three in steps:
        now += 0.06
        if what == "report":
            span.reported(Report(one, two, three, 0), counter + 1, now)
        elif what == "send":
            counter += one
            span.sent(counter, two, three, now)
        elif what == "singles":
            counter += one
            span.sent_singles(counter, two, three // two, three, now)
            counter += two - 1
        elif what == "wait":
            now += one
            span.handle_deadline(now)
        else:
            span.path(one, now)
        assert 1 <= span.span <= MOST
        assert 1000 <= span.largest_record <= LARGEST_RECORD
