"""Runs of the model: flows over a shared path, and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.core.records.model.control import Control
from tests.core.records.model.flow import Flow
from tests.core.records.model.line import (
    MBIT,
    Clock,
    Line,
    Path,
)
from tests.core.records.model.tunnels import PlainTunnel, Processor, Tunnel


@dataclass
class Outcome:
    """Results of a run. `tunnels` is empty for plain tunnels.

    throughput    of each flow, in Mbit/s, from `since` on
    overhead      bytes sent per byte received
    dropped       datagrams the queue had no room for
    """

    throughput: list[float]
    overhead: float
    dropped: int
    tunnels: list[Tunnel]


def run(
    line: Line,
    control: Callable[[], Control],
    seconds: float,
    *,
    plain: bool = False,
    begins: Iterable[float] = (0.0,),
    since: float = 0.0,
    processor: Processor | None = None,
    seed: int = 1,
) -> Outcome:
    """Run flows over a shared path, each through a tunnel of its own; `begins` lists their start times."""
    clock = Clock()
    path = Path(clock, line, seed)
    kind = PlainTunnel if plain else Tunnel
    tunnels: list[PlainTunnel] = []
    flows = []
    for begin in begins:
        tunnels.append(kind(clock, path, processor or Processor()))
        flows.append(Flow(clock, tunnels[-1], control(), begin))
    clock.run(since)
    former = [flow.received for flow in flows]
    clock.run(seconds)
    return Outcome(
        [(flow.received - before) / (seconds - since) / MBIT for flow, before in zip(flows, former, strict=True)],
        path.sent / max(1, sum(flow.received for flow in flows)),
        path.dropped,
        [tunnel for tunnel in tunnels if isinstance(tunnel, Tunnel)],
    )
