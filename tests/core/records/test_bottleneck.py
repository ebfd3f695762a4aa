"""Whether this program limits a link: told by what the device had, and how long both loops slept."""

from __future__ import annotations

import pytest

from vpntun.core.records.bottleneck import Bottleneck

NOW = 1000.0


def measured(*, backlogged: int = 0, slept: float = 0.0, peer_busy: float = 0.0) -> Bottleneck:
    """After 100 records in a second."""
    bottleneck = Bottleneck(NOW)
    bottleneck.backlogged, bottleneck.slept = backlogged, slept
    bottleneck.measure(100, peer_busy, NOW + 1)
    return bottleneck


def test_before_anything_was_measured_the_path_is_taken_for_the_limit() -> None:
    bottleneck = Bottleneck(NOW)
    bottleneck.backlogged = 100
    assert not bottleneck.is_here


@pytest.mark.parametrize(
    ("backlogged", "slept", "peer_busy", "is_here"),
    [
        (50, 0.5, 0.0, True),
        (49, 0.5, 0.0, False),
        (50, 0.51, 0.0, False),
        (50, 1.0, 0.75, True),
        (50, 1.0, 0.74, False),
        (49, 1.0, 1.0, False),
        (1000, 0.0, 0.0, True),
    ],
)
def test_it_is_here_where_packets_wait_and_either_end_hardly_sleeps(
    backlogged: int, slept: float, peer_busy: float, is_here: bool
) -> None:
    assert measured(backlogged=backlogged, slept=slept, peer_busy=peer_busy).is_here is is_here


def test_each_measurement_counts_from_the_one_before_it() -> None:
    bottleneck = measured(backlogged=100)
    assert (bottleneck.backlogged, bottleneck.slept) == (0, 0.0)
    bottleneck.backlogged = 20
    bottleneck.measure(140, 0.0, NOW + 2)
    assert bottleneck.is_here
    bottleneck.backlogged = 20
    bottleneck.measure(240, 0.0, NOW + 3)
    assert not bottleneck.is_here


@pytest.mark.parametrize(("counter", "now"), [(100, NOW + 2), (90, NOW + 2), (200, NOW + 1), (200, NOW + 0.5)])
def test_no_records_or_no_time_since_the_last_change_nothing(counter: int, now: float) -> None:
    bottleneck = measured(backlogged=100)
    bottleneck.slept, bottleneck.backlogged = 10.0, 7
    bottleneck.measure(counter, 0.0, now)
    assert bottleneck.is_here
    assert (bottleneck.slept, bottleneck.backlogged) == (10.0, 7)


def add(bottleneck: Bottleneck, *, backlogged: int, slept: float) -> None:
    """What the host does while it sends."""
    bottleneck.backlogged += backlogged
    bottleneck.slept += slept


def test_each_share_of_time_counts_from_the_measurement_before_it() -> None:
    bottleneck = measured(backlogged=100, slept=0.9)
    assert not bottleneck.is_here
    add(bottleneck, backlogged=100, slept=0.4)
    bottleneck.measure(200, 0.0, NOW + 2)
    assert bottleneck.is_here, "0.4 s of the last second"
    add(bottleneck, backlogged=100, slept=0.6)
    bottleneck.measure(300, 0.0, NOW + 3)
    assert not bottleneck.is_here


def test_a_rest_is_no_sleep() -> None:
    bottleneck = measured(backlogged=100)
    add(bottleneck, backlogged=0, slept=9.9)
    bottleneck.rested(100, NOW + 11)
    add(bottleneck, backlogged=80, slept=0.4)
    bottleneck.measure(200, 0.0, NOW + 12)
    assert bottleneck.is_here
    bottleneck.rested(200, NOW + 22)
    add(bottleneck, backlogged=80, slept=0.6)
    bottleneck.measure(300, 0.0, NOW + 23)
    assert not bottleneck.is_here, "0.6 s of the second since the rest"
