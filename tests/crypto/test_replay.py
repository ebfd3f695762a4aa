"""The replay window, checked with the kernel's test table and with a model that keeps every counter."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.vectors import load
from vpntun.crypto.replay import LIMIT, WINDOW, ReplayWindow

TABLE = load("replay")


def test_the_constants_are_wireguards() -> None:
    assert WINDOW == 8128
    assert LIMIT == 2**64 - 2**13 - 1


def test_the_kernels_table() -> None:
    window = ReplayWindow()
    for number, row in enumerate(TABLE["table"], 1):
        counter = row.get("t", 0) * (WINDOW + 1) + row.get("r", 0) * LIMIT + row["n"]
        assert window.seen(counter) is not row["accepted"], f"row {number}"
        assert window.mark(counter) is row["accepted"], f"row {number}"


@pytest.mark.parametrize("bulk", TABLE["bulk"])
def test_the_kernels_bulk_tests(bulk: dict[str, Any]) -> None:
    def counter(t: int, n: int) -> int:
        return t * (WINDOW + 1) + n

    window = ReplayWindow()
    first, last = counter(*bulk["from"]), counter(*bulk["to"])
    step = 1 if last > first else -1
    assert all(window.mark(number) for number in range(first, last + step, step))
    for t, n, accepted in bulk["then"]:
        assert window.mark(counter(t, n)) is accepted


steps = st.one_of(st.just(1), st.integers(-200, 200), st.integers(-9000, 9000), st.integers(-20000, 20000))


@given(st.integers(0, LIMIT + 100), st.lists(steps, max_size=200))
def test_it_behaves_like_a_set_of_all_counters(start: int, walk: list[int]) -> None:
    window, accepted, greatest, counter = ReplayWindow(), set(), -1, start
    for step in [0, *walk]:
        counter = min(max(counter + step, 0), 2**64 - 1)
        expected = counter < LIMIT and counter not in accepted and greatest - counter <= WINDOW
        assert window.seen(counter) is not expected
        assert window.mark(counter) is expected
        if expected:
            accepted.add(counter)
            greatest = max(greatest, counter)


def test_looking_does_not_mark() -> None:
    window = ReplayWindow()
    assert not window.seen(5)
    assert not window.seen(5)
    assert not window.seen(10**6)
    assert window.mark(5)
    assert window.seen(5)


def test_a_leap_of_many_windows_clears_the_whole_ring() -> None:
    window = ReplayWindow()
    for counter in range(WINDOW + 64):
        assert window.mark(counter)
    leap = (WINDOW + 64) * 1000 + 63
    assert window.mark(leap)
    assert all(window.mark(counter) for counter in range(leap - WINDOW, leap))
