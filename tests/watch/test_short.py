"""Short texts: each unit, each change of unit, and the bars of a sparkline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.watch import short
from vpntun.watch.history import Drop


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (None, "-"),
        (0, "0 bit/s"),
        (124, "992 bit/s"),
        (125, "1.00 kbit/s"),
        (12_345, "98.8 kbit/s"),
        (124_990, "1.00 Mbit/s"),
        (15e6, "120 Mbit/s"),
        (1.25e8, "1.00 Gbit/s"),
        (1.25e12, "10000 Gbit/s"),
    ],
)
def test_a_rate_is_written_in_bits(rate: float | None, text: str) -> None:
    assert short.rate(rate) == text


@given(st.floats(0, 1.2e11))
def test_a_rate_has_at_most_eleven_characters(rate: float) -> None:
    assert len(short.rate(rate)) <= 11


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.000123, "0.12 ms"), (0.01234, "12.3 ms"), (1.5, "1500 ms")]
)
def test_a_round_trip_is_written_in_milliseconds(seconds: float | None, text: str) -> None:
    assert short.milliseconds(seconds) == text


@pytest.mark.parametrize(
    ("part", "text"), [(None, "-"), (0.0, "0.00%"), (0.00125, "0.12%"), (0.123, "12.3%"), (1, "100%")]
)
def test_a_share_is_written_in_per_cent(part: float | None, text: str) -> None:
    assert short.share(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "119 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_an_age_has_one_unit(seconds: float | None, text: str) -> None:
    assert short.age(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1 << 20, "1.00 MiB"), (5 << 30, "5.00 GiB")]
)
def test_a_size_has_binary_units(number: int, text: str) -> None:
    assert short.size(number) == text


def test_drops_name_what_is_new() -> None:
    drops = [Drop("queue full", 1234, 3), Drop("own key", 2, 0)]
    assert list(map(short.drop, drops)) == ["1,234 queue full (+3)", "2 own key"]
    assert short.sum_of_drops(drops) == "1,236 (+3)"
    assert short.sum_of_drops(drops[1:]) == "2"


def test_a_number_agrees_with_its_unit() -> None:
    assert (short.count(1, "packet"), short.count(1234, "packet")) == ("1 packet", "1,234 packets")


def test_a_sparkline_reaches_from_zero_to_the_largest_value_that_it_shows() -> None:
    assert short.sparkline((900.0, 0.0, 1.0, 50.0, 100.0), 4) == "▁▂▄▇"
    assert short.sparkline((900.0, 0.0, 1.0, 50.0, 100.0), 5) == "▇▁▂▂▂"


def test_a_sparkline_has_gaps_for_unknown_values_and_is_filled_from_the_right() -> None:
    assert short.sparkline((5.0, None, 5.0), 6) == "   ▇ ▇"
    assert short.sparkline((), 3) == "   "
    assert short.sparkline((0.0, 0.0), 2) == "▁▁"
    assert short.sparkline((5.0,), 0) == ""


@given(st.lists(st.none() | st.floats(0, 1e15)), st.integers(0, 60))
def test_a_sparkline_has_its_width_whatever_the_values(values: list[float | None], width: int) -> None:
    for blocks in (short.BLOCKS, short.ASCII_BLOCKS):
        drawn = short.sparkline(tuple(values), width, blocks)
        assert len(drawn) == width
        assert set(drawn) <= {" ", *blocks}
