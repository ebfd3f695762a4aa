"""Parities where datagrams are lost at random, and only there: the rule by itself, and over simulated paths."""

from __future__ import annotations

import pytest

from tests.core.records.path import MBIT, SINGLE, Simulation
from vpntun.core.records.path_estimator import PathEstimator, ReportSample
from vpntun.core.records.protection import FIRST_LOOK, LARGEST_GROUP, SMALLEST_GROUP, Protection
from vpntun.core.records.sent_log import SentLog
from vpntun.core.records.span import MOST
from vpntun.wire.record import PARITY_SIZE

LOAD = 40 * MBIT


def possible() -> Protection:
    protection = Protection()
    protection.possible = True
    return protection


# The rule


def test_the_first_thousand_datagrams_of_a_path_count_as_wanted_and_of_those_it_is_learned() -> None:
    protection = possible()
    assert protection.wanted
    protection.learn(FIRST_LOOK - 10, 0)
    assert protection.wanted
    protection.learn(20, 0)
    assert not protection.wanted
    protection.moved()
    assert protection.wanted


def test_it_is_wanted_over_a_loss_of_five_in_ten_thousand_and_until_less_than_two() -> None:
    protection = possible()
    protection.learn(5000, 0)
    assert not protection.wanted
    for _ in range(20):
        protection.learn(2000, 2)
    assert protection.wanted
    for _ in range(10):
        protection.learn(3000, 1)
    assert protection.wanted
    protection.learn(40_000, 0)
    assert not protection.wanted


@pytest.mark.parametrize(("loss", "group"), [(0.1, SMALLEST_GROUP), (0.01, 8), (0.001, LARGEST_GROUP)])
def test_a_group_is_so_small_that_no_more_than_one_of_it_should_be_lost(loss: float, group: int) -> None:
    protection = possible()
    for _ in range(10):
        protection.learn(2000, int(2000 * loss))
    assert protection.group == pytest.approx(group, abs=1)


def test_without_room_or_where_the_peer_does_not_take_it_it_is_wanted_in_vain() -> None:
    protection = Protection()
    protection.decide(room=True)
    assert not protection.active
    protection.possible = True
    protection.decide(room=False)
    assert not protection.active
    protection.decide(room=True)
    assert protection.active


def test_a_peer_that_reports_more_than_was_sent_does_not_hide_what_is_lost_later() -> None:
    protection = possible()
    protection.learn(1000, -1_000_000)
    protection.learn(1000, 10)
    assert protection.wanted


# Room on the path


def told(sent_log: SentLog, *, count: int, size: int, now: float) -> None:
    for _ in range(count):
        sent_log.sent(sent_log.next, 1, size, now)


def test_the_round_trip_of_a_message_without_packets_is_not_measured() -> None:
    """When it was sent is not known: one that was once taken for the shortest made each later one look delayed."""
    estimator, sent_log = PathEstimator(0.0), SentLog()
    told(sent_log, count=1, size=1000, now=1.0)
    sent_log.fill(2, 1.1)  # a REPORT of this end's, which left at 1.0
    told(sent_log, count=2, size=1000, now=1.1)
    estimator.take(ReportSample(0.9, 0, 1), ReportSample(1.14, 1, 2), sent_log, 1.14)
    told(sent_log, count=2, size=1000, now=1.2)
    estimator.take(ReportSample(1.14, 1, 2), ReportSample(1.27, 4, 5), sent_log, 1.27)
    assert not estimator.path_rate(1.27)


def test_near_the_rate_at_which_it_delayed_the_path_has_no_room_for_a_second() -> None:
    simulation = Simulation(100 * MBIT, queue=0.2)
    simulation.run(1.0, 50 * MBIT)
    estimator = simulation.span.estimator
    assert estimator.has_room(simulation.now)
    simulation.run(1.0, 110 * MBIT)
    assert not estimator.has_room(simulation.now)
    simulation.run(4.0, 90 * MBIT)
    assert not estimator.path_rate(simulation.now)
    assert estimator.has_room(simulation.now)


# Over paths


@pytest.mark.parametrize("loss", [0.01, 0.002])
def test_on_a_path_that_loses_at_random_next_to_no_record_is_lost(loss: float) -> None:
    simulation = Simulation(loss=loss, protectable=True)
    simulation.run(3.0, LOAD)
    former, simulation.lost_records = simulation.span.sent_log.next, 0
    simulation.run(4.0, LOAD)
    assert set(simulation.protected[-4000:]) == {True}
    assert simulation.lost_records / (simulation.span.sent_log.next - former) < loss / 8
    assert simulation.span.estimator.loss == pytest.approx(loss, rel=0.5)
    assert simulation.span.largest_record == SINGLE - PARITY_SIZE


def test_a_peer_that_does_not_take_it_gets_none() -> None:
    simulation = Simulation(loss=0.01)
    simulation.run(3.0, LOAD)
    assert not simulation.parities


def test_a_clean_path_gets_them_for_its_first_thousand_datagrams_alone() -> None:
    simulation = Simulation(protectable=True)
    simulation.run(3.0, LOAD)
    assert any(simulation.protected[:500])
    assert not any(simulation.protected[1500:])
    assert simulation.parities < 2 * FIRST_LOOK / LARGEST_GROUP


def test_long_records_go_without() -> None:
    simulation = Simulation(protectable=True)
    simulation.run(0.3, 20 * MBIT)
    assert simulation.protected[-1], "the path's first datagrams are protected"
    simulation.run(1.0, 80 * MBIT, saturated=True)
    assert simulation.span.span == MOST
    assert not simulation.protected[-1]


def test_near_long_records_stay_long_where_datagrams_are_lost_at_random_and_each_burst_has_a_parity() -> None:
    simulation = Simulation(delay=0.001, protectable=True)
    simulation.run(2.0, 80 * MBIT, saturated=True)
    simulation.loss = 0.001
    simulation.run(2.0, 80 * MBIT, saturated=True)
    former, simulation.lost_records = simulation.protected_bursts, 0
    simulation.run(4.0, 80 * MBIT, saturated=True)
    assert set(simulation.spans[-4000:]) == {MOST - 2}
    bursts = simulation.protected_bursts - former
    assert bursts > 400
    assert simulation.lost_records <= 0.005 * bursts, "of 44 datagrams one is lost in a burst of 23"


def test_far_away_long_records_end_where_datagrams_are_lost_at_random() -> None:
    simulation = Simulation(protectable=True)
    simulation.run(2.0, 80 * MBIT, saturated=True)
    simulation.loss = 0.002
    simulation.run(4.0, 80 * MBIT, saturated=True)
    assert set(simulation.spans[-1000:]) == {1}


def test_no_parity_takes_this_programs_time_while_it_is_the_limit() -> None:
    simulation = Simulation(loss=0.002, protectable=True)
    simulation.run(3.0, LOAD)
    assert simulation.protected[-1]
    simulation.run(1.0, LOAD, saturated=True)
    assert not simulation.protected[-1]


def test_where_the_round_trip_is_short_bursts_are_protected_whatever_limits_the_link() -> None:
    for delay, bursts in ((0.001, True), (0.01, False)):
        simulation = Simulation(loss=0.002, delay=delay, protectable=True)
        simulation.run(3.0, LOAD)
        simulation.protected_bursts = simulation.parities = 0
        simulation.run(2.0, LOAD)
        assert (simulation.protected_bursts > 0) is bursts
        assert (simulation.parities > 0) is not bursts


def test_so_much_loss_that_no_burst_pays_gets_parities_on_a_short_path_too() -> None:
    simulation = Simulation(loss=0.15, delay=0.001, protectable=True)
    simulation.run(4.0, LOAD)
    assert set(simulation.spans[-1000:]) == {1}
    assert any(simulation.protected[-1000:])


def test_where_nothing_is_lost_no_burst_is_protected_however_short_the_round_trip() -> None:
    simulation = Simulation(delay=0.0005, protectable=True)
    simulation.run(3.0, LOAD, saturated=True)
    assert simulation.span.span == MOST
    assert not simulation.protected_bursts


def test_a_peer_without_parities_gets_no_protected_burst() -> None:
    simulation = Simulation(loss=0.002, delay=0.001)
    simulation.run(4.0, LOAD)
    assert not simulation.protected_bursts


def test_losses_of_a_queue_that_is_full_call_for_none() -> None:
    simulation = Simulation(40 * MBIT, queue=0.05, protectable=True)
    simulation.run(1.5, 20 * MBIT)
    simulation.run(4.0, 48 * MBIT)
    assert simulation.lost_records
    assert not any(simulation.protected[2500:])


def test_on_a_path_that_is_full_and_loses_at_random_parities_give_way_to_packets() -> None:
    simulation = Simulation(50 * MBIT, loss=0.01, queue=0.2, protectable=True)
    simulation.run(2.0, 15 * MBIT)
    assert simulation.protected[-1]
    simulation.run(2.0, 52 * MBIT)
    assert not simulation.protected[-1]
    simulation.rest(1.5)
    simulation.run(2.0, 15 * MBIT)
    assert simulation.protected[-1]


def test_losses_that_end_end_it() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, LOAD)
    simulation.loss = 0.0
    simulation.run(14.0, LOAD)
    assert not simulation.protected[-1]


def test_records_over_streams_are_never_protected() -> None:
    simulation = Simulation(loss=0.01, payload=0, protectable=True)
    simulation.run(2.0, LOAD)
    assert not any(simulation.protected)


def test_a_path_of_another_length_stays_protected() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, LOAD)
    simulation.span.path(1200, simulation.now)
    simulation.payload = 1200
    assert simulation.span.protection.active
    simulation.run(0.5, LOAD)
    assert simulation.span.protection.active


def test_what_is_lost_in_a_row_is_a_full_queue_and_calls_for_nothing() -> None:
    protection = possible()
    protection.learn(5000, 0)
    protection.learn(100, 40)
    protection.decide(room=True)
    assert not protection.active


def test_of_another_path_nothing_is_known_but_that_it_is_new() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, LOAD)
    simulation.span.moved(simulation.now)
    assert simulation.span.protection.active
    assert not simulation.span.protection.loses_at_random
