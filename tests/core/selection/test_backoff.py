"""The back-off: bounded below and above for any outage, with jitter."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.selection.backoff import CAP, JITTER, pause


@given(st.floats(min_value=0, allow_infinity=True), st.floats(0.1, 10), st.integers())
def test_the_pause_never_overflows_and_stays_between_the_least_and_the_cap(
    outage: float, least: float, seed: int
) -> None:
    assert least <= pause(outage, least, Random(seed)) <= max(least, CAP) * (1 + JITTER)


def test_the_pause_grows_with_the_outage_and_ends_within_40_seconds() -> None:
    pauses = [pause(outage, 1, Random(1)) for outage in (0, 10, 60, 10**6, 10**300, float("inf"))]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1.3
    assert 32 <= pauses[-1] <= 40


def test_the_pause_has_jitter_so_that_two_ends_do_not_stay_in_step() -> None:
    rng = Random(1)
    assert len({pause(100, 1, rng) for _ in range(20)}) == 20
