"""The terms of a measurement: the figures it gives, and the place where it is taken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmark.machines import Machine
from benchmark.subjects import Tunnel


@dataclass(frozen=True)
class Figure:
    name: str
    heading: str  # with its unit
    digits: int = 0


@dataclass(frozen=True)
class Bench:
    """The two machines, their device on the path between them, and how long a load takes."""

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
