"""The targets of vpntun on the grid, measured against wireguard-go at the same point. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.grid import CONGESTIONS, POINTS, Point
from benchmark.gridfigures import CUBIC, of
from benchmark.targets import TCP, UDP, WIREGUARD, Target

CLEAN = [point for point in POINTS if not point.loss]
LOSSY = [point for point in POINTS if point.loss]
SLIGHTLY_LOSSY = [point for point in POINTS if point.loss == 0.1]
THROUGHPUT, THROUGHPUT_WITH_LOSS, THROUGHPUT_OVER_TCP = 0.97, 3.0, 0.95  # of wireguard-go's
WIRE, WIRE_WITH_LOSS = 0.01, 1.25  # bytes for each byte received: beyond wireguard-go's; in total
AGAIN = 20  # segments beyond wireguard-go's
TRIP = 1.0  # ms beyond wireguard-go's
START = 0.3  # s beyond wireguard-go's


@dataclass(frozen=True)
class Aim:
    """One requirement that holds at several points: a target for each of them and each congestion control."""

    title: str
    targets: Sequence[Target]


def _aims(subject: str) -> Iterator[Aim]:
    def aim(
        title: str,
        points: Sequence[Point],
        figure: str,
        bound: float,
        congestions: Sequence[str] = CONGESTIONS,
        *,
        to: str | None = WIREGUARD,
        at_most: bool = True,
        minus: bool = False,
    ) -> Aim:
        names = [(point.name, of(each, figure)) for point in points for each in congestions]
        return Aim(title, [Target(path, name, subject, to, bound, at_most, minus) for path, name in names])

    theirs = f"{WIREGUARD}'s"
    if subject == UDP:
        title = f"throughput >= {THROUGHPUT} of {theirs}"
        yield aim(title, POINTS, "", THROUGHPUT, at_most=False)
        title = f"throughput under random loss with CUBIC >= {THROUGHPUT_WITH_LOSS:g} times {theirs}"
        yield aim(title, LOSSY, "", THROUGHPUT_WITH_LOSS, [CUBIC], at_most=False)
    else:
        title = f"throughput without random loss >= {THROUGHPUT_OVER_TCP} of {theirs}"
        yield aim(title, CLEAN, "", THROUGHPUT_OVER_TCP, at_most=False)
    yield aim(f"wire/received without random loss <= {theirs} + {WIRE}", CLEAN, "wire", WIRE, minus=True)
    yield aim(f"wire/received with 0.1% lost <= {WIRE_WITH_LOSS}", SLIGHTLY_LOSSY, "wire", WIRE_WITH_LOSS, to=None)
    yield aim(f"segments sent again without random loss <= {theirs} + {AGAIN}", CLEAN, "again", AGAIN, minus=True)
    yield aim(f"median round trip under load <= {theirs} + {TRIP:g} ms", POINTS, "trip", TRIP, minus=True)
    yield aim(f"p99 round trip under load <= {theirs}", POINTS, "p99", 1)
    yield aim(f"start <= {theirs} + {START} s", POINTS, "start", START, minus=True)


AIMS = {subject: tuple(_aims(subject)) for subject in (UDP, TCP)}
