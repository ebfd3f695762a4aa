"""Round trips of PROBEs during a speed test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.speed.round_trips import FORGOTTEN_AFTER, INTERVAL, MOST_OUT, Latency, RoundTrips, summary


def test_an_echo_tells_the_round_trip_of_its_probe_once() -> None:
    trips = RoundTrips(0.0)
    trips.asked(1, 10.0)
    trips.asked(2, 10.1)
    assert trips.echoed(2, 10.35) == pytest.approx(0.25)
    assert trips.echoed(1, 10.5) == pytest.approx(0.5)
    assert trips.echoed(1, 10.6) is None
    assert trips.taken == [pytest.approx(0.25), pytest.approx(0.5)]


def test_an_echo_of_another_probe_tells_nothing() -> None:
    assert RoundTrips(0.0).echoed(7, 1.0) is None


def test_probes_are_due_at_equal_intervals_even_if_one_is_late() -> None:
    trips = RoundTrips(0.0)
    trips.asked(1, 0.01)
    assert trips.due == pytest.approx(INTERVAL)
    trips.asked(2, 5.0)
    assert trips.due == pytest.approx(5.0 + INTERVAL / 2)


def test_probes_that_were_sent_elsewhere_tell_nothing() -> None:
    trips = RoundTrips(0.0)
    trips.asked(1, 10.0)
    trips.forget_asked()
    assert trips.echoed(1, 10.1) is None
    assert trips.taken == []


def test_unanswered_probes_are_forgotten() -> None:
    trips = RoundTrips(0.0)
    trips.asked(1, 0.0)
    trips.asked(2, FORGOTTEN_AFTER)
    assert trips.echoed(1, FORGOTTEN_AFTER) is None
    for token in range(3, 3 + MOST_OUT):
        trips.asked(token, FORGOTTEN_AFTER)
    assert trips.echoed(2, FORGOTTEN_AFTER) is None
    assert trips.echoed(3, FORGOTTEN_AFTER) is not None


def test_the_summary_has_the_shortest_the_median_and_the_95th_of_a_hundred() -> None:
    assert summary([number / 100 for number in range(100, -1, -1)]) == pytest.approx(Latency(0.0, 0.5, 0.95))
    assert summary([0.2]) == Latency(0.2, 0.2, 0.2)
    assert summary([]) is None


@given(st.lists(st.floats(0, 10), min_size=1))
def test_the_values_of_a_summary_are_in_order(trips: list[float]) -> None:
    found = summary(trips)
    assert found is not None
    assert found.shortest <= found.median <= found.most + 1e-9
