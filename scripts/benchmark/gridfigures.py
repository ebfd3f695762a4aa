"""The figures of the grid. Each flow has a named congestion control, and its receiver reports every 0.1 s.

1. A single flow, with CUBIC and with BBR, gives six figures at once: its throughput; the segments that TCP inside sent
   again; the bytes on the wire for each byte received; the median and the 99th percentile of the round trips of a ping
   beside it; and its start, the seconds until it first reaches 90% of its later rate.
2. Several flows, a flow each way at once, and two tunnels side by side use CUBIC.
3. Throughputs and round trips leave out the first second. The bytes on the wire are counted at the sender's device
   during the whole flow. They include the pings, and the segments still in flight at the end, which are not received.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from benchmark import loads
from benchmark.errors import BenchError
from benchmark.grid import CONGESTIONS, WARM_UP
from benchmark.measuring import Bench, Figure, Measure, Measurement, Readings
from benchmark.readings import Observed
from benchmark.subjects import Tunnel

EVERY = 0.02  # seconds between two pings
MARGIN = 0.3  # seconds before a flow's end at which the pings beside it end
CUBIC = CONGESTIONS[0]


def of(congestion: str, figure: str) -> str:
    """The name of one of the six figures of a single flow; "" is the throughput, named like the congestion control."""
    return f"{congestion}-{figure}" if figure else congestion


def _figures() -> Iterator[Figure]:
    for congestion, shown in zip(CONGESTIONS, ("cubic", "BBR"), strict=True):
        yield Figure(congestion, f"1 flow {shown} Mbit/s", 1)
        yield Figure(of(congestion, "again"), f"{shown} sent again segments")
        yield Figure(of(congestion, "wire"), f"{shown} wire / received", 3)
        yield Figure(of(congestion, "trip"), f"{shown} round trip ms", 1)
        yield Figure(of(congestion, "p99"), f"{shown} p99 ms", 1)
        yield Figure(of(congestion, "start"), f"{shown} start s", 1)
    yield Figure("two", "2 flows up Mbit/s", 1)
    yield Figure("eight", "8 flows up Mbit/s", 1)
    yield Figure("both-up", "each way up Mbit/s", 1)
    yield Figure("both-down", "each way down Mbit/s", 1)
    yield Figure("share", "2 tunnels smaller share", 2)


FIGURES = tuple(_figures())


def _single(congestion: str) -> Measure:
    def measure(bench: Bench, tunnel: Tunnel) -> Readings:
        before = bench.a.sent_bytes(bench.device)
        with loads.observed(bench.a, bench.b, tunnel.far, bench.seconds, congestion) as result:
            time.sleep(WARM_UP)
            trips = loads.pings_beside(bench.a, tunnel.far, bench.seconds - WARM_UP - MARGIN, EVERY)
            flow = result()
        sent = bench.a.sent_bytes(bench.device) - before
        if not flow.nbytes:
            raise BenchError("the flow's receiver got no data")
        return {
            congestion: flow.mbits(WARM_UP),
            of(congestion, "again"): flow.repeated,
            of(congestion, "wire"): sent / flow.nbytes,
            of(congestion, "trip"): trips.median / 1e3,
            of(congestion, "p99"): trips.p99 / 1e3,
            of(congestion, "start"): flow.start(),
        }

    return measure


def _several(name: str, flows: int) -> Measure:
    def measure(bench: Bench, tunnel: Tunnel) -> Readings:
        with loads.observed(bench.a, bench.b, tunnel.far, bench.seconds, CUBIC, flows=flows) as result:
            return {name: result().mbits(WARM_UP)}

    return measure


def _both(bench: Bench, tunnel: Tunnel) -> Readings:
    up, down = _at_once(bench, (tunnel.far, False), (tunnel.far, True))
    return {"both-up": up.mbits(WARM_UP), "both-down": down.mbits(WARM_UP)}


def _share(bench: Bench, tunnel: Tunnel) -> Readings:
    """Measure the throughput of the slower of two tunnels of one kind, as a share of their mean."""
    with tunnel.twin() as twin:
        rates = [flow.mbits(WARM_UP) for flow in _at_once(bench, (tunnel.far, False), (twin.far, False))]
    if not sum(rates):
        raise BenchError("the receivers of both flows got no data")
    return {"share": min(rates) / (sum(rates) / 2)}


def _at_once(bench: Bench, first: tuple[str, bool], second: tuple[str, bool]) -> tuple[Observed, Observed]:
    """Run two flows at the same time. Each is given by its far address and whether it goes back."""

    def flow(far: str, back: bool) -> AbstractContextManager[Callable[[], Observed]]:
        return loads.observed(bench.a, bench.b, far, bench.seconds, CUBIC, back=back)

    with flow(*first) as one, flow(*second) as other:
        return one(), other()


MEASUREMENTS = (
    *(
        Measurement(each, _single(each), [figure.name for figure in FIGURES if figure.name.startswith(each)], each)
        for each in CONGESTIONS
    ),
    Measurement("two", _several("two", 2), ("two",), CUBIC),
    Measurement("eight", _several("eight", 8), ("eight",), CUBIC),
    Measurement("both", _both, ("both-up", "both-down"), CUBIC),
    Measurement("share", _share, ("share",), CUBIC),
)
