"""What a receiver counts of a speed test, and the rate that follows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.speed.arrivals import WARM_UP, Arrivals


def feed(arrivals: Arrivals, rate: float, since: float, until: float, size: int = 1000) -> None:
    for number in range(int((until - since) * rate / size)):
        arrivals.received(size, since + number * size / rate)


def test_a_steady_rate_is_shown() -> None:
    arrivals = Arrivals(5)
    feed(arrivals, 1e6, 100.0, 105.0)
    assert abs(arrivals.rate(105.0) - 1e6) < 1e3
    assert arrivals.total == 5_000_000


def test_the_search_for_the_rate_does_not_count() -> None:
    arrivals = Arrivals(5)
    feed(arrivals, 1e4, 100.0, 100.0 + 5 * WARM_UP)
    feed(arrivals, 1e6, 100.0 + 5 * WARM_UP, 105.0)
    assert abs(arrivals.rate(105.0) - 1e6) < 5e3


def test_what_comes_after_the_time_is_in_the_total_alone() -> None:
    arrivals = Arrivals(1)
    feed(arrivals, 1e6, 0.0, 1.0)
    rate = arrivals.rate(1.0)
    arrivals.received(1_000_000, 1.5)
    assert arrivals.rate(1.0) == arrivals.rate(9.0) == rate
    assert arrivals.total == 2_000_000


def test_a_pause_in_the_later_part_counts() -> None:
    arrivals = Arrivals(5)
    feed(arrivals, 1e6, 0.0, 3.0)
    feed(arrivals, 1e6, 4.0, 5.0)
    assert 0.6e6 < arrivals.rate(5.0) < 0.7e6


def test_a_pause_at_the_end_counts() -> None:
    arrivals = Arrivals(5)
    feed(arrivals, 1e6, 0.0, 4.0)
    assert abs(arrivals.rate(4.0) - 1e6) < 5e3
    assert 0.6e6 < arrivals.rate(5.0) < 0.7e6
    assert arrivals.rate(5.0) == arrivals.rate(7.0)


def test_there_is_no_rate_before_the_later_part() -> None:
    arrivals = Arrivals(5)
    assert arrivals.rate(5.0) == 0
    feed(arrivals, 1e6, 5.0, 6.0)
    assert arrivals.rate(6.0) == 0


@given(st.lists(st.tuples(st.integers(1, 65_535), st.floats(0, 2)), max_size=30))
def test_the_rate_is_never_negative_and_the_total_is_exact(records: list[tuple[int, float]]) -> None:
    arrivals, now = Arrivals(3), 10.0
    for size, pause in records:
        now += pause
        arrivals.received(size, now)
    assert arrivals.total == sum(size for size, _ in records)
    assert arrivals.rate(now) >= 0
