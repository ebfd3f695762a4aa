"""Short texts for values, with units: few characters, of about the same length whatever the value.

Unknown values are a dash. Every text is also the right one in plain ASCII, but for the sparklines, which have a second
set of characters for terminals without Unicode.
"""

from __future__ import annotations

from collections.abc import Sequence

from vpntun.watch.history import Drop, Series

UNKNOWN = "-"
BLOCKS, ASCII_BLOCKS = "▁▂▃▄▅▆▇", "_.-~=*#"
"""Bars from low to high. A full block would touch the line above."""
AGES = ((86400, "d", 2), (3600, "h", 2), (60, "min", 2), (1, "s", 0))
"""Length of each unit, its name, and from how many of it on it is used: 90 s stay 90 s."""


def rate(bytes_per_second: float | None, unit: str = "bit/s") -> str:
    """Write a rate in bits: 0 bit/s, 1.20 kbit/s, 12.3 Mbit/s, 123 Gbit/s."""
    if bytes_per_second is None:
        return UNKNOWN
    value = bytes_per_second * 8
    for prefix in ("", "k", "M"):
        if value < 999.5:
            return f"{_three_digits(value) if prefix else f'{value:.0f}'} {prefix}{unit}".rstrip()
        value /= 1000
    return f"{_three_digits(value)} G{unit}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def milliseconds(seconds: float | None) -> str:
    """Write a round trip: 0.12 ms, 12.3 ms, 1234 ms."""
    return UNKNOWN if seconds is None else f"{_three_digits(seconds * 1000)} ms"


def share(part: float | None) -> str:
    """Write a share in per cent: 0.00%, 12.3%."""
    return UNKNOWN if part is None else f"{_three_digits(part * 100)}%"


def age(seconds: float | None) -> str:
    """Write a time in one unit: 90 s, 3 min, 5 h, 400 d."""
    if seconds is None:
        return UNKNOWN
    length, unit, _ = next(each for each in AGES if seconds >= each[0] * each[2])
    return f"{seconds // length:.0f} {unit}"


def lasting(seconds: float | None) -> str:
    """Write for how long something has been so, to follow other words; nothing if that is unknown."""
    return "" if seconds is None else f" for {age(seconds)}"


def size(number: float) -> str:
    """Write a number of bytes: 999 B, 1.95 KiB, 12.3 MiB."""
    if number < 1000:
        return f"{number:.0f} B"
    for unit in ("KiB", "MiB"):
        number /= 1024
        if number < 999.5:
            return f"{_three_digits(number)} {unit}"
    return f"{_three_digits(number / 1024)} GiB"


def carrier(name: str | None) -> str:
    """Write a carrier as people do: UDP. Nothing for none."""
    return (name or "").upper()


def count(number: int, unit: str) -> str:
    """Write a number with its unit: 1 packet, 1,234 packets."""
    return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"


def drop(each: Drop) -> str:
    """Write a reason of drops with its total, and with how many are new: 12 queue full (+3)."""
    return f"{each.total:,} {each.reason}" + (f" (+{each.new:,})" if each.new else "")


def sum_of_drops(drops: Sequence[Drop]) -> str:
    """Write the number of all drops, and of the new ones: 15 (+3)."""
    total, new = sum(each.total for each in drops), sum(each.new for each in drops)
    return f"{total:,}" + (f" (+{new:,})" if new else "")


def sparkline(series: Series, width: int, blocks: str = BLOCKS) -> str:
    """Draw the last `width` values as a line of bars, the newest at the right; a gap for each unknown value.

    The lowest bar is zero, and the highest the largest value that is drawn.
    """
    shown = series[-width:] if width > 0 else ()
    largest = max((value for value in shown if value is not None), default=0.0)
    return "".join(" " if value is None else _bar(value, largest, blocks) for value in shown).rjust(max(0, width))


def _bar(value: float, largest: float, blocks: str) -> str:
    if value <= 0 or largest <= 0:
        return blocks[0]
    return blocks[min(len(blocks) - 1, max(1, round(value / largest * (len(blocks) - 1))))]
