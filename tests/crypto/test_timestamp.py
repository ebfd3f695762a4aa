"""TAI64N timestamps: their bytes and their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vpntun.crypto.timestamp import tai64n

wall = st.floats(0, 2**33)


def test_the_epoch_and_half_a_second_are_encoded_as_tai64n() -> None:
    assert tai64n(0).hex() == "400000000000000a" + "00000000"
    assert tai64n(1.5).hex() == "400000000000000b" + f"{500_000_000 & ~0xFFFFFF:08x}"


@given(wall)
def test_twelve_bytes_whose_last_24_bits_are_zero_and_nanoseconds_below_a_second(time: float) -> None:
    stamp = tai64n(time)
    assert len(stamp) == 12
    assert stamp[9:] == bytes(3)
    assert int.from_bytes(stamp[8:], "big") < 10**9


@given(wall, wall)
def test_a_later_time_never_compares_as_smaller(one: float, other: float) -> None:
    earlier, later = sorted([one, other])
    assert tai64n(earlier) <= tai64n(later)
    if later - earlier > 0.017:
        assert tai64n(earlier) < tai64n(later)
