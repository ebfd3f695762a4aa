"""Flow through a forward: from a program of a machine to its vpntun, and from there by the tunnel to the other machine.

The tunnel's own flow is measured right before it, since the figure is the ratio of the two.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from benchmark import loads
from benchmark.measuring import Bench, Measure, Readings
from benchmark.subjects import VPNTUN, Tunnel

HERE = "127.0.0.1"


def through_a_forward(name: str, *, back: bool = False) -> Measure:
    """Measure the throughput of a flow through a forward, in percent of the tunnel's own flow."""

    def measure(bench: Bench, tunnel: Tunnel) -> Readings:
        if not _can_forward(tunnel):
            return {}
        own = loads.tcp(bench.a, bench.b, tunnel.far, bench.seconds, back=back)
        forwarded = loads.tcp_through(bench.a, bench.b, partial(_forward, tunnel), bench.seconds, back=back)
        return {name: 100 * forwarded.mbits / own.mbits if own.mbits else None}

    return measure


def _can_forward(tunnel: Tunnel) -> bool:
    """Whether the calling end is vpntun."""
    a = tunnel.site.a
    return any(machine is a and process.command[: len(VPNTUN)] == VPNTUN for machine, process in tunnel.site.processes)


@contextlib.contextmanager
def _forward(tunnel: Tunnel, port: int) -> Iterator[str]:
    """Forward a port of a to the same one of b during the body; yield the address to connect to."""
    a, device = tunnel.site.a, tunnel.site.device(tunnel.site.a)
    a.run(*VPNTUN, "expose", device, f"{HERE}:{port}", f"{tunnel.far}:{port}")
    try:
        yield HERE
    finally:
        a.run(*VPNTUN, "unexpose", device, f"{HERE}:{port}")
