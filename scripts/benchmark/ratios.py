"""Medians, percentiles and ratios of readings, which are listed by round. None stands for a reading that failed.

The machine's speed changes from minute to minute. Therefore the median of the ratios within each round is more reliable
than the ratio of two medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def median(readings: Sequence[float | None]) -> float | None:
    """The median of the readings that are not None; None if there are none."""
    taken = sorted(reading for reading in readings if reading is not None)
    if not taken:
        return None
    middle = len(taken) // 2
    return taken[middle] if len(taken) % 2 else (taken[middle - 1] + taken[middle]) / 2


def percentile(readings: Sequence[float], share: float) -> float:
    """The smallest reading that at least `share` percent of all readings do not exceed."""
    ordered = sorted(readings)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def ratios(readings: Sequence[float | None], to: Sequence[float | None]) -> list[float | None]:
    """The ratio in each round; None where a reading is missing or the divisor is 0."""
    return [
        None if mine is None or theirs is None or theirs == 0 else mine / theirs
        for mine, theirs in zip(readings, to, strict=False)
    ]


def ratio(readings: Sequence[float | None], to: Sequence[float | None]) -> float | None:
    """The median of the ratios within the rounds."""
    return median(ratios(readings, to))


def difference(readings: Sequence[float | None], to: Sequence[float | None]) -> float | None:
    """The median of the differences within the rounds, without rounds in which a reading is missing."""
    pairs = zip(readings, to, strict=False)
    return median([mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None])
