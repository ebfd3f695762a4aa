"""What is measured on which path: the whole of it, and the part that is done in under five minutes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

FLOWS = ("up", "down", "four")
EVERYTHING = (*FLOWS, "idle", "loaded", "pps", "rss", "rest")
BESIDE = ("up", "down", "idle", "loaded")
LONG = ("cubic", "bbr", "idle", "loaded")


@dataclass(frozen=True)
class Part:
    """What is measured on one path, and how often."""

    measurements: Sequence[str]
    rounds: int


@dataclass(frozen=True)
class Plan:
    """`parts` by the name of the path; a load takes so many seconds, on a long path twice as many."""

    parts: Mapping[str, Part]
    seconds: float

    def limited(self, paths: Sequence[str], measurements: Sequence[str]) -> Plan:
        """Only these paths, each with all of these measurements; where none are named, as planned."""
        parts = {name: self.parts.get(name, WHOLE.parts[name]) for name in paths or self.parts}
        if measurements:
            parts = {name: replace(part, measurements=measurements) for name, part in parts.items()}
        return replace(self, parts=parts)

    def timed(self, rounds: int | None, seconds: float | None) -> Plan:
        """With so many rounds on each path and seconds a load, where they are given."""
        parts = {name: replace(part, rounds=rounds or part.rounds) for name, part in self.parts.items()}
        return Plan(parts, seconds or self.seconds)

    def without(self, measurement: str) -> Plan:
        left = {
            path: replace(part, measurements=[name for name in part.measurements if name != measurement])
            for path, part in self.parts.items()
        }
        return replace(self, parts=left)


WHOLE = Plan(
    {
        "veth": Part(EVERYTHING, 3),
        "hub": Part(BESIDE, 5),
        "no-offloads": Part(EVERYTHING, 3),
        "loss-0.1": Part(EVERYTHING, 3),
        "loss-1": Part(EVERYTHING, 3),
        "long": Part(LONG, 3),
        "long-0.1": Part(LONG, 3),
        "long-1": Part(LONG, 3),
    },
    seconds=3,
)
QUICK = Plan(
    {
        "veth": Part(("up", "down", "idle", "loaded", "pps", "rss", "rest"), 2),
        "hub": Part(("down", "idle"), 1),
        "no-offloads": Part(("up", "down"), 1),
        "loss-1": Part(("up", "down"), 1),
        "long": Part(("cubic", "bbr"), 1),
        "long-1": Part(("cubic", "bbr"), 1),
    },
    seconds=1,
)
