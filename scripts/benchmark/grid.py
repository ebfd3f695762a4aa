"""The grid of ordinary paths, like access lines and wide-area links, from 20 to 300 Mbit/s. Pure.

A path is named by its numbers: Mbit/s, ms one way, packets of queue and, with random loss, percent of packets lost.
"300-10-400-1" is 300 Mbit/s with 10 ms each way, a queue of 400 packets and 1% lost.
"""

from __future__ import annotations

from dataclasses import dataclass

GRID = "grid"  # the name of the whole grid on the command line


@dataclass(frozen=True)
class Point:
    """One path of the grid."""

    rate: float  # Mbit/s
    delay: float  # ms one way
    queue: int  # packets that may wait for the rate
    loss: float = 0.0  # percent of the packets, each way

    @property
    def name(self) -> str:
        return f"{self.rate:g}-{self.delay:g}-{self.queue}" + (f"-{self.loss:g}" if self.loss else "")

    @property
    def title(self) -> str:
        lost = f", {self.loss:g}% lost" if self.loss else ""
        return f"{self.rate:g} Mbit/s, round trip {2 * self.delay:g} ms, a queue of {self.queue} packets{lost}"


POINTS = (
    Point(50, 10, 100),
    Point(100, 25, 400),
    Point(300, 1, 400),
    Point(300, 10, 400),
    Point(300, 10, 1500),
    Point(20, 40, 60),
    Point(100, 25, 400, 0.1),
    Point(300, 10, 400, 1),
)
CONGESTIONS = ("cubic", "bbr")  # each measured by a separate flow
WARM_UP = 1.0  # seconds at the start of a flow that do not count for throughput and round trips
LEAST_SECONDS = 2.0  # duration of a flow, so that some of it counts
