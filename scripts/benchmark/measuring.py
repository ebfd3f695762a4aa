"""The types of measurements, their figures and readings, and of the bench on which they are taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.machines import Machine
from benchmark.subjects import Tunnel


@dataclass(frozen=True)
class Figure:
    name: str
    heading: str  # ends with the unit
    digits: int = 0


@dataclass(frozen=True)
class Bench:
    """The two machines, their device on the path between them, and the duration of a load."""

    a: Machine
    b: Machine
    device: str
    seconds: float


Readings = Mapping[str, "float | None"]
Measure = Callable[[Bench, Tunnel], Readings]


@dataclass(frozen=True)
class Measurement:
    name: str
    take: Measure
    gives: Sequence[str]
    congestion: str = ""  # the congestion control that the kernel must have
