"""The token bucket: its burst and its rate."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.bucket import TokenBucket, TokenBuckets


def test_the_burst_goes_at_once_and_then_one_at_the_rate() -> None:
    bucket = TokenBucket(10, 20)
    assert [bucket.take(1000.0) for _ in range(21)] == [True] * 20 + [False]
    assert not bucket.take(1000.0625)
    assert bucket.take(1000.125)
    assert not bucket.take(1000.125)


def test_at_most_the_burst_is_saved_up() -> None:
    bucket = TokenBucket(10, 3)
    assert bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(4)] == [True, True, True, False]


def test_several_are_taken_together_or_not_at_all() -> None:
    bucket = TokenBucket(10, 20)
    assert bucket.take(0.0, 15)
    assert not bucket.take(0.0, 6)
    assert bucket.take(0.0, 5)
    assert bucket.take(1.0, 10)


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=200))
def test_no_interval_yields_more_tokens_than_burst_and_rate_allow(pauses: list[float]) -> None:
    bucket, now = TokenBucket(10, 5), 50.0
    taken = []
    for pause in pauses:
        now += pause
        if bucket.take(now):
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= 5 + (taken[last] - taken[first]) * 10 + 1e-6


class Guest:
    """Somebody who has a bucket."""


def test_each_owner_has_one_bucket_of_its_own() -> None:
    buckets: TokenBuckets[Guest] = TokenBuckets(10, 2)
    alice, bob = Guest(), Guest()
    assert buckets.of(alice).take(0.0, 2)
    assert not buckets.of(alice).take(0.0)
    assert buckets.of(bob).take(0.0, 2)
