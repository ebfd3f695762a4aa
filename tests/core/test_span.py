"""The span over simulated paths."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.path import MBIT, PACKETS, PAYLOAD, Simulation
from vpntun.core.span import FIRST, MOST, Span
from vpntun.wire.burst import datagrams_for
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import LARGEST_RECORD, Report


def test_it_begins_at_four_datagrams_and_the_record_fills_them() -> None:
    span = Span(PAYLOAD, PACKETS, 0.0)
    assert span.span == FIRST
    assert datagrams_for(span.largest_record + DATA_OVERHEAD, PAYLOAD) == FIRST
    assert datagrams_for(span.largest_record + DATA_OVERHEAD + 1, PAYLOAD) == FIRST + 1


def test_a_clean_fast_path_with_a_waiting_device_grows_to_forty_four_in_two_seconds() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    assert simulation.span.span == MOST
    assert simulation.span.largest_record == MOST * (PAYLOAD - 16) - 16
    assert simulation.span.measured.rate == pytest.approx(800 * MBIT, rel=0.1)


def until_most(simulation: Simulation) -> int:
    """Milliseconds of a load that this program limits until the span is the most."""
    former = len(simulation.spans)
    simulation.run(2.0, 800 * MBIT, saturated=True)
    return simulation.spans[former:].index(MOST)


def test_a_load_after_a_rest_has_the_longest_records_in_little_more_than_the_time_of_two_reports() -> None:
    simulation = Simulation(10_000 * MBIT)
    assert until_most(simulation) < 200
    simulation.rest(1.5)
    simulation.span.bottleneck.slept += 1.5
    assert until_most(simulation) < 150
    assert simulation.spans[-2000] == FIRST


def test_after_a_loss_it_only_doubles() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.loss = 0.01
    simulation.run(1.0, 800 * MBIT, saturated=True)
    simulation.loss = 0.0
    simulation.run(4.0, 800 * MBIT, saturated=True)
    later = simulation.spans[3000:]
    assert later[-1] == MOST
    assert all(after <= 2 * before for before, after in itertools.pairwise(later))


def test_control_messages_between_are_not_taken_for_losses() -> None:
    simulation = Simulation()
    for _ in range(200):
        simulation.control()
        simulation.run(0.01, 800 * MBIT, saturated=True)
    assert simulation.span.span == MOST
    assert simulation.span.measured.loss == 0.0


def test_without_a_waiting_device_it_stays() -> None:
    simulation = Simulation()
    simulation.run(3.0, 400 * MBIT)
    assert set(simulation.spans) == {FIRST}


def test_the_loss_is_known_once_it_was_measured_on_this_path() -> None:
    simulation = Simulation()
    assert not simulation.span.measured.loss_is_known
    simulation.run(3.0, 400 * MBIT)
    assert simulation.span.measured.loss_is_known
    simulation.span.moved(simulation.now)
    assert not simulation.span.measured.loss_is_known


def test_a_loop_that_sleeps_most_of_the_time_is_no_bottleneck_though_packets_come_in_clumps() -> None:
    simulation = Simulation()
    for _ in range(3000):
        simulation.run(0.001, 400 * MBIT)
        simulation.span.bottleneck.backlogged += 10
    assert set(simulation.spans) == {FIRST}


def test_a_slow_path_whose_queue_is_in_the_path_and_not_here_keeps_it_small() -> None:
    simulation = Simulation(300 * MBIT, queue=0.03)
    simulation.run(3.0, 330 * MBIT)
    assert max(simulation.spans) == FIRST


def test_a_percent_of_lost_datagrams_shrinks_it_to_what_a_packet_needs() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.loss = 0.01
    simulation.run(0.5, 800 * MBIT, saturated=True)
    assert simulation.span.span <= 2 * FIRST
    simulation.run(3.0, 800 * MBIT, saturated=True)
    assert max(simulation.spans[-2000:]) <= FIRST
    assert simulation.span.measured.loss == pytest.approx(0.01, rel=0.3)


def test_a_thousandth_of_lost_datagrams_leaves_it_about_ten() -> None:
    simulation = Simulation(loss=0.001)
    simulation.run(5.0, 800 * MBIT, saturated=True)
    later = simulation.spans[2000:]
    assert 4 <= sum(later) / len(later) <= 16


def test_losses_that_end_let_it_grow_again() -> None:
    simulation = Simulation(loss=0.01)
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.loss = 0.0
    simulation.run(4.0, 800 * MBIT, saturated=True)
    assert simulation.span.span == MOST


def test_reordering_is_no_loss() -> None:
    simulation = Simulation(jitter=0.03)
    simulation.run(4.0, 800 * MBIT, saturated=True)
    assert simulation.span.span == MOST


def test_a_second_without_a_report_halves_it() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.silent = True
    simulation.run(1.4, 80 * MBIT, saturated=True)
    assert simulation.span.span == MOST // 2
    simulation.run(1.0, 80 * MBIT, saturated=True)
    assert simulation.span.span == MOST // 4


def test_idleness_brings_it_back_to_four() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.rest(1.5)
    assert simulation.now >= simulation.span.deadline
    simulation.run(0.001, 1400.0)
    assert simulation.span.span == FIRST


def test_a_middlebox_that_drops_bursts_leaves_the_smallest_and_is_tried_again_ever_more_seldom() -> None:
    simulation = Simulation()
    simulation.drops_bursts = True
    simulation.run(1.4, 10 * MBIT, saturated=True)
    assert not simulation.span.passes
    assert simulation.span.span == PACKETS
    simulation.run(30.0, 10 * MBIT, saturated=True)
    trials = sum(
        former == PACKETS and later == FIRST
        for former, later in zip(simulation.spans, simulation.spans[1:], strict=False)
    )
    assert 2 <= trials <= 3
    simulation.drops_bursts = False
    simulation.run(40.0, 10 * MBIT)
    assert simulation.span.passes


def test_a_middlebox_is_recognised_among_single_datagrams_that_pass() -> None:
    simulation = Simulation()
    simulation.drops_bursts = True
    for _ in range(150):
        simulation.send(500)
        simulation.send(4000)
        simulation.rest(0.01)
        if simulation.now >= simulation.span.deadline:
            simulation.span.handle_deadline(simulation.now)
    assert not simulation.span.passes


def test_a_black_hole_is_seen_and_not_taken_for_loss() -> None:
    simulation = Simulation(smallest=2)
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.drops_longer_than = 1400
    for _ in range(60):
        simulation.send(500)
        simulation.send(40_000)
        simulation.rest(0.02)
        if simulation.now >= simulation.span.deadline:
            simulation.span.handle_deadline(simulation.now)
    assert simulation.span.vanishing(simulation.now)
    assert simulation.span.span == MOST
    assert simulation.span.passes
    simulation.payload = 1200
    simulation.span.path(1200, 2, simulation.now)
    assert not simulation.span.vanishing(simulation.now)
    simulation.run(0.5, 80 * MBIT)
    assert not simulation.span.vanishing(simulation.now)
    assert simulation.span.span == MOST


def test_probes_that_are_lost_are_not_losses() -> None:
    simulation = Simulation(50 * MBIT)
    for _ in range(100):
        simulation.span.probed(simulation._counter)
        simulation._counter += 1
        simulation.run(0.02, 20 * MBIT, saturated=True)
    assert simulation.span.span > FIRST


def test_where_the_path_delays_a_record_takes_three_milliseconds_of_its_rate() -> None:
    simulation = Simulation(8 * MBIT, queue=0.2)
    simulation.run(0.2, 1 * MBIT)
    simulation.run(3.0, 8.4 * MBIT)
    assert simulation.span.largest_record == pytest.approx(0.003 * 8 * MBIT, rel=0.15)
    simulation.rest(2.0)
    simulation.span.handle_deadline(simulation.now)
    assert simulation.span.largest_record == FIRST * (PAYLOAD - 16) - 16


def test_a_packet_always_fits_however_slow_the_path() -> None:
    simulation = Simulation(1 * MBIT, queue=0.5)
    simulation.run(5.0, 1.1 * MBIT)
    assert simulation.span.largest_record == PACKETS * (PAYLOAD - 16) - 16


def test_little_traffic_on_a_fast_path_does_not_shorten_records() -> None:
    simulation = Simulation()
    simulation.run(5.0, 1 * MBIT)
    assert simulation.span.largest_record == FIRST * (PAYLOAD - 16) - 16


def test_a_stream_takes_the_longest_records_there_are() -> None:
    span = Span(0, 1, 0.0)
    assert span.largest_record == LARGEST_RECORD
    span.path(PAYLOAD, PACKETS, 0.0)
    assert span.largest_record == FIRST * (PAYLOAD - 16) - 16
    span.path(0, 1, 0.0)
    assert span.largest_record == LARGEST_RECORD


def test_a_slow_stream_takes_records_of_three_milliseconds() -> None:
    simulation = Simulation(20 * MBIT, queue=10.0, payload=0, smallest=1)
    simulation.run(0.2, 1 * MBIT)
    simulation.run(2.0, 22 * MBIT)
    assert simulation.span.largest_record == pytest.approx(0.003 * 20 * MBIT, rel=0.25)


def test_one_send_holds_no_more_than_the_kernel_takes() -> None:
    for payload, most in ((1200, MOST), (1472, MOST), (8972, 7), (65_507, 1)):
        simulation = Simulation(payload=payload, smallest=1)
        simulation.run(3.0, 800 * MBIT, saturated=True)
        assert simulation.span.span == most
        assert most * payload <= 65_507


def test_a_new_session_keeps_what_was_learned() -> None:
    simulation = Simulation()
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.new_session()
    simulation.run(1.0, 800 * MBIT, saturated=True)
    assert set(simulation.spans[-1000:]) == {MOST}


def test_another_path_begins_anew() -> None:
    simulation = Simulation(loss=0.001)
    simulation.run(2.0, 800 * MBIT, saturated=True)
    simulation.span.moved(simulation.now)
    assert simulation.span.span == FIRST
    assert simulation.span.measured.loss == simulation.span.measured.rate == 0.0


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
            st.tuples(st.just("wait"), st.integers(0, 3), st.just(0), st.just(0)),
            st.tuples(st.just("path"), st.sampled_from([0, 1200, 1472, 8972]), st.integers(1, 3), st.just(0)),
        )
    )
)
def test_a_hostile_peers_reports_never_lead_beyond_the_bounds(steps: list[tuple[str, int, int, int]]) -> None:
    now, counter, smallest = 0.0, 0, PACKETS
    span = Span(PAYLOAD, smallest, now)
    for what, one, two, three in steps:
        now += 0.06
        if what == "report":
            span.reported(Report(one, two, three, 0), counter + 1, now)
        elif what == "send":
            counter += one
            span.sent(counter, two, three, now)
        elif what == "wait":
            now += one
            span.handle_deadline(now)
        else:
            smallest = two
            span.path(one, two, now)
        assert smallest <= span.span <= max(MOST, smallest)
        assert 1000 <= span.largest_record <= LARGEST_RECORD


def test_a_busy_sender_keeps_to_four_datagrams_whatever_is_lost_and_an_idle_one_goes_to_the_smallest() -> None:
    simulation = Simulation(loss=0.02)
    simulation.run(3.0, 800 * MBIT, saturated=True)
    assert simulation.span.span == FIRST
    simulation.run(3.0, 100 * MBIT)
    assert simulation.span.span == PACKETS
