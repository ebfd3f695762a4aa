"""Medians, percentiles and ratios. A round is a list of readings taken one after the other; None: none could be taken.

The machine's speed changes from minute to minute, so two medians say less than the median of the ratios that were each
taken within one round.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def median(readings: Sequence[float | None]) -> float | None:
    """Of the readings that there are; None without any."""
    taken = sorted(reading for reading in readings if reading is not None)
    if not taken:
        return None
    middle = len(taken) // 2
    return taken[middle] if len(taken) % 2 else (taken[middle - 1] + taken[middle]) / 2


def percentile(readings: Sequence[float], share: float) -> float:
    """The smallest reading that at least so many percent of all do not exceed."""
    ordered = sorted(readings)
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def ratios(readings: Sequence[float | None], to: Sequence[float | None]) -> list[float | None]:
    """Round by round; None where either is missing or the other is 0."""
    return [
        None if mine is None or theirs is None or theirs == 0 else mine / theirs
        for mine, theirs in zip(readings, to, strict=False)
    ]


def ratio(readings: Sequence[float | None], to: Sequence[float | None]) -> float | None:
    """The median of the ratios within the rounds."""
    return median(ratios(readings, to))


def difference(readings: Sequence[float | None], to: Sequence[float | None]) -> float | None:
    """The median of the differences within the rounds; a round in which either is missing does not count."""
    pairs = zip(readings, to, strict=False)
    return median([mine - theirs for mine, theirs in pairs if mine is not None and theirs is not None])
