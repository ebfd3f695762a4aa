"""Parities where datagrams are lost at random, and only there: the rule by itself, and over simulated paths."""

from __future__ import annotations

import pytest

from tests.core.path import MBIT, PACKETS, PAYLOAD, Simulation
from vpntun.core.ledger import Ledger
from vpntun.core.measured import Mark, Measured
from vpntun.core.protection import Protection
from vpntun.core.span import FIRST, FIRST_PROTECTED, LARGEST_SEND, LEAST_WHEN_BUSY, MOST, Span
from vpntun.wire.burst import FILLING_SIZE, datagrams_for
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE


def possible() -> Protection:
    protection = Protection()
    protection.possible = True
    return protection


# The rule


def test_it_is_wanted_as_soon_as_one_datagram_of_a_few_was_lost() -> None:
    protection = possible()
    protection.learn(300, 0)
    assert not protection.decide(room=True)
    protection.learn(300, 1)
    assert protection.decide(room=True)
    assert protection.active


def test_one_datagram_lost_among_many_is_not_worth_it() -> None:
    protection = possible()
    for _ in range(50):
        protection.learn(300, 0)
    protection.learn(300, 1)
    assert not protection.wanted


def test_it_lasts_until_hardly_any_is_lost_any_more() -> None:
    protection = possible()
    for _ in range(20):
        protection.learn(1000, 1)
    protection.learn(5000, 0)
    assert protection.wanted
    protection.learn(20_000, 0)
    assert not protection.wanted


def test_without_room_or_where_the_peer_does_not_take_it_it_is_wanted_in_vain() -> None:
    protection = Protection()
    protection.learn(300, 3)
    assert not protection.decide(room=True)
    protection.possible = True
    assert not protection.decide(room=False)
    assert protection.decide(room=True)
    assert not protection.decide(room=True), "that is no news"
    assert protection.decide(room=False)
    assert not protection.active


def test_a_peer_that_reports_more_than_was_sent_does_not_hide_what_is_lost_later() -> None:
    protection = possible()
    protection.learn(100, -1_000_000)
    protection.learn(100, 1)
    assert protection.wanted


# Room on the path


def told(ledger: Ledger, *, count: int, size: int, now: float) -> None:
    for _ in range(count):
        ledger.sent(ledger.next, 1, size, now)


def test_the_round_trip_of_a_message_without_packets_is_not_measured() -> None:
    """When it was sent is not known: one that was once taken for the shortest made each later one look delayed."""
    measured, ledger = Measured(0.0), Ledger()
    told(ledger, count=1, size=1000, now=1.0)
    ledger.fill(2, 1.1)  # a REPORT of this end's, which left at 1.0
    told(ledger, count=2, size=1000, now=1.1)
    measured.take(Mark(0.9, 0, 1), Mark(1.14, 1, 2), ledger, 1.14)
    told(ledger, count=2, size=1000, now=1.2)
    measured.take(Mark(1.14, 1, 2), Mark(1.27, 4, 5), ledger, 1.27)
    assert not measured.path_rate(1.27)


def test_near_the_rate_at_which_it_delayed_the_path_has_no_room_until_it_has_been_idle() -> None:
    simulation = Simulation(100 * MBIT, queue=0.2)
    simulation.run(1.0, 50 * MBIT)
    measured = simulation.span.measured
    assert measured.has_room(simulation.now)
    simulation.run(1.0, 110 * MBIT)
    assert not measured.has_room(simulation.now)
    simulation.run(3.0, 90 * MBIT)
    assert not measured.path_rate(simulation.now)
    assert not measured.has_room(simulation.now)
    simulation.run(2.0, 50 * MBIT)
    assert measured.has_room(simulation.now)


def test_a_path_that_became_wider_has_room_again() -> None:
    simulation = Simulation(100 * MBIT, queue=0.2)
    simulation.run(2.0, 110 * MBIT)
    simulation.rate = 1000 * MBIT
    simulation.run(3.0, 200 * MBIT)
    assert simulation.span.measured.has_room(simulation.now)


# The span


def test_a_percent_of_lost_datagrams_costs_less_than_two_percent_of_long_records() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(2.0, 200 * MBIT)
    assert simulation.protected[-1]
    former, simulation.lost_records = simulation.span._ledger.next, 0
    simulation.run(5.0, 200 * MBIT)
    assert set(simulation.protected[-5000:]) == {True}
    assert 10 <= simulation.span.span <= 20
    assert simulation.lost_records / (simulation.span._ledger.next - former) < 0.02
    assert simulation.span.measured.loss == pytest.approx(0.01, rel=0.3)


def test_a_thousandth_of_lost_datagrams_is_hardly_noticed() -> None:
    simulation = Simulation(loss=0.001, protectable=True)
    simulation.run(3.0, 200 * MBIT)
    simulation.lost_records = 0
    simulation.run(5.0, 200 * MBIT)
    assert simulation.span.span == FIRST_PROTECTED
    assert simulation.lost_records <= 5


def test_a_device_with_more_waiting_makes_protected_records_longer() -> None:
    simulation = Simulation(loss=0.001, protectable=True)
    simulation.run(8.0, 500 * MBIT, saturated=True)
    assert simulation.protected[-1]
    assert simulation.span.span > 2 * FIRST_PROTECTED
    assert (simulation.span.span + 1) * PAYLOAD <= LARGEST_SEND


def test_a_peer_that_does_not_take_it_gets_none() -> None:
    simulation = Simulation(loss=0.01)
    simulation.run(5.0, 200 * MBIT)
    assert not any(simulation.protected)


def test_a_clean_path_gets_none() -> None:
    simulation = Simulation(protectable=True)
    simulation.run(5.0, 500 * MBIT, saturated=True)
    assert not any(simulation.protected)
    assert simulation.span.span == MOST


def test_losses_of_a_queue_that_is_full_call_for_none() -> None:
    simulation = Simulation(100 * MBIT, queue=0.05, protectable=True)
    simulation.run(5.0, 120 * MBIT)
    assert simulation.lost_records
    assert not any(simulation.protected)


def test_on_a_path_that_is_full_and_loses_at_random_parities_give_way_to_packets_and_records_stay_at_four() -> None:
    simulation = Simulation(100 * MBIT, loss=0.01, queue=0.2, protectable=True)
    simulation.run(2.0, 30 * MBIT)
    assert simulation.protected[-1]
    simulation.run(2.0, 105 * MBIT)
    assert not simulation.protected[-1]
    assert simulation.span.span >= LEAST_WHEN_BUSY
    simulation.rest(1.5)
    simulation.run(2.0, 30 * MBIT)
    assert simulation.protected[-1]


def test_losses_that_end_end_it() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, 200 * MBIT)
    simulation.loss = 0.0
    simulation.run(6.0, 200 * MBIT)
    assert not simulation.protected[-1]
    assert simulation.span.span == FIRST


@pytest.mark.parametrize("mtu", [1500, 9000, 40_000, 60_000, 61_000, 62_000, 63_000, 64_000, 65_000])
@pytest.mark.parametrize("payload", [1200, 1472, 8972])
def test_what_is_protected_can_be_sent_by_one_call_whatever_the_mtu(mtu: int, payload: int) -> None:
    smallest = min(datagrams_for(mtu + 37, payload), LARGEST_SEND // payload)
    simulation = Simulation(loss=0.01, payload=payload, smallest=smallest, protectable=True)
    for saturated in (False, True):
        simulation.run(3.0, 400 * MBIT, saturated=saturated)
        if simulation.span.protection.active:
            size = simulation.span.largest_record + DATA_OVERHEAD
            datagrams = datagrams_for(size + FILLING_SIZE, payload) + 1
            assert datagrams * payload <= LARGEST_SEND
        else:
            assert mtu > 60_000 or payload > 1472


def test_a_path_of_another_length_is_protected_again_when_it_is_known_to_have_room() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, 200 * MBIT)
    simulation.span.path(1200, 2, simulation.now)
    simulation.payload = 1200
    assert not simulation.span.protection.active
    simulation.run(0.5, 200 * MBIT)
    assert simulation.span.protection.active


def test_another_path_begins_without() -> None:
    simulation = Simulation(loss=0.01, protectable=True)
    simulation.run(3.0, 200 * MBIT)
    simulation.span.moved(simulation.now)
    assert not simulation.span.protection.active
    assert simulation.span.span == FIRST


def test_a_record_leaves_room_for_its_filling_and_a_packet_always_fits() -> None:
    span = Span(PAYLOAD, PACKETS, 0.0)
    without = span.largest_record
    span.protection.active = True
    span.path(PAYLOAD, PACKETS, 1.0)
    assert span.largest_record == without - FILLING_SIZE
    span.path(PAYLOAD, FIRST, 1.0)
    assert span.largest_record == without
    assert datagrams_for(without + DATA_OVERHEAD, PAYLOAD) == FIRST
    assert without + DATA_OVERHEAD == FIRST * (PAYLOAD - HEADER_SIZE) + HEADER_SIZE
