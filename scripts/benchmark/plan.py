"""Plans of what to measure on which path: all of it, and the part that takes less than five minutes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmark.grid import POINTS

FLOWS = ("up", "down", "four")
FORWARDS = ("forward", "forward-down")
EVERYTHING = (*FLOWS, *FORWARDS, "idle", "loaded", "pps", "rss", "rest")
WITHOUT_OFFLOADS = (*FLOWS, "pps")
LOSING = ("up", "down", "cubic", "bbr")
BESIDE = ("up", "down", "idle", "loaded")
FLOODED = ("up", "down", "join", "held")
ON_GRID = ("cubic", "bbr", "two", "eight", "both", "share")
FLOOD = "flood"
POINT_NAMES = tuple(point.name for point in POINTS)


@dataclass(frozen=True)
class Part:
    """The measurements of one path, and the number of rounds."""

    measurements: Sequence[str]
    rounds: int


@dataclass(frozen=True)
class Plan:
    """The parts by the name of their path, and the duration of a load, of a flow on the grid, and under a flood."""

    parts: Mapping[str, Part]
    seconds: float
    grid_seconds: float
    flood_seconds: float

    def seconds_on(self, path: str) -> float:
        if path == FLOOD:
            return self.flood_seconds
        return self.grid_seconds if path in POINT_NAMES else self.seconds

    @property
    def has_grid(self) -> bool:
        """Whether anything is measured on the grid."""
        return any(name in POINT_NAMES for name in self.parts)

    def limited(self, paths: Sequence[str], measurements: Sequence[str]) -> Plan:
        """Limit the plan to these paths and measurements; an empty list leaves them as planned."""
        parts = {name: self.parts.get(name, WHOLE.parts[name]) for name in paths or self.parts}
        if measurements:
            parts = {name: replace(part, measurements=measurements) for name, part in parts.items()}
        return replace(self, parts=parts)

    def timed(self, rounds: int | None, seconds: float | None) -> Plan:
        """Set the number of rounds on each path and the seconds of a load, if they are given."""
        parts = {name: replace(part, rounds=rounds or part.rounds) for name, part in self.parts.items()}
        return Plan(parts, *(seconds or each for each in (self.seconds, self.grid_seconds, self.flood_seconds)))

    def without(self, measurement: str) -> Plan:
        left = {
            path: replace(part, measurements=[name for name in part.measurements if name != measurement])
            for path, part in self.parts.items()
        }
        return replace(self, parts=left)


WHOLE = Plan(
    {
        "veth": Part(EVERYTHING, 7),
        "hub": Part(BESIDE, 5),
        FLOOD: Part(FLOODED, 3),
        "no-offloads": Part(WITHOUT_OFFLOADS, 7),
        "loss-0.1": Part(LOSING, 7),
        "loss-1": Part(LOSING, 7),
        **{name: Part(ON_GRID, 5) for name in POINT_NAMES},
    },
    seconds=3,
    grid_seconds=6,
    flood_seconds=30,
)
QUICK = Plan(
    {
        "veth": Part(("up", "down", "forward", "idle", "loaded", "pps", "rss", "rest"), 2),
        "hub": Part(("down", "idle"), 1),
        FLOOD: Part(("up", "join"), 1),
        "no-offloads": Part(("up", "down"), 1),
        "loss-1": Part(("up", "down"), 1),
        "300-10-400": Part(("cubic", "bbr"), 1),
        "300-10-400-1": Part(("cubic", "bbr"), 1),
    },
    seconds=1,
    grid_seconds=4,
    flood_seconds=4,
)
