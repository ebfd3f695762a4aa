"""The measurements of a tunnel. Each runs one load and gives one or more figures."""

from __future__ import annotations

import socket
import time

from benchmark import floods, gridfigures, loads
from benchmark.forwards import through_a_forward
from benchmark.measuring import Bench, Figure, Measure, Measurement, Readings
from benchmark.subjects import Tunnel

FIGURES = (
    Figure("up", "1 flow up Mbit/s"),
    Figure("down", "1 flow down Mbit/s"),
    Figure("four", "4 flows up Mbit/s"),
    Figure("forward", "forward up %"),
    Figure("forward-down", "forward down %"),
    Figure("idle", "round trip idle us"),
    Figure("idle-p99", "idle p99 us"),
    Figure("loaded", "round trip loaded us"),
    Figure("loaded-p99", "loaded p99 us"),
    Figure("loaded-lost", "lost loaded %", 1),
    Figure("pps", "64-byte UDP k/s", 1),
    Figure("cpu", "CPU s/GB", 2),
    Figure("rss", "resident MiB", 1),
    Figure("wakes", "idle wake-ups /s", 1),
    Figure("join", "new peer s", 1),
    Figure("descriptors", "descriptors", 0),
    *gridfigures.FIGURES,
)


def _flow(name: str, *, flows: int = 1, back: bool = False) -> Measure:
    """Measure TCP throughput and, for a single flow up, the processor time of the tunnel's processes."""

    def measure(bench: Bench, tunnel: Tunnel) -> Readings:
        before = tunnel.processor_seconds()
        transfer = loads.tcp(bench.a, bench.b, tunnel.far, bench.seconds, flows=flows, back=back)
        readings: dict[str, float | None] = {name: transfer.mbits}
        if name == "up" and not tunnel.bare and transfer.nbytes:
            readings["cpu"] = (tunnel.processor_seconds() - before) / (transfer.nbytes / 1e9)
        return readings

    return measure


def _idle(bench: Bench, tunnel: Tunnel) -> Readings:
    trips = loads.pings(bench.a, tunnel.far)
    return {"idle": trips.median, "idle-p99": trips.p99}


def _loaded(bench: Bench, tunnel: Tunnel) -> Readings:
    trips = loads.pings_under_load(bench.a, bench.b, tunnel.far, bench.seconds)
    return {"loaded": trips.median, "loaded-p99": trips.p99, "loaded-lost": trips.lost * 100}


def _small(bench: Bench, tunnel: Tunnel) -> Readings:
    return {"pps": loads.small_datagrams(bench.a, bench.b, tunnel.far, bench.seconds) / 1e3}


def _memory(bench: Bench, tunnel: Tunnel) -> Readings:
    return {} if tunnel.bare else {"rss": tunnel.resident_mebibytes()}


def _rest(bench: Bench, tunnel: Tunnel) -> Readings:
    """Measure the wake-ups of the busier end of an idle tunnel."""
    if tunnel.bare:
        return {}
    time.sleep(0.5)  # for the last packets of the load before
    before = [process.wake_ups() for process in tunnel.own]
    time.sleep(bench.seconds)
    woken = [process.wake_ups() - count for process, count in zip(tunnel.own, before, strict=True)]
    return {"wakes": max(woken) / bench.seconds}


def _join(bench: Bench, tunnel: Tunnel) -> Readings:
    """Measure how long a new peer takes to connect to a server beside a flow, its start included."""
    with loads.flow(bench.a, bench.b, tunnel.far, floods.LONGEST_JOIN + bench.seconds):
        return {"join": floods.join(tunnel.site)}


def _held(bench: Bench, tunnel: Tunnel) -> Readings:
    """Measure the memory and the descriptors that a server holds after all that it has met so far."""
    server = floods.server_of(tunnel.site)
    return {"rss": server.resident_mebibytes(), "descriptors": server.descriptors()}


MEASUREMENTS = (
    Measurement("up", _flow("up"), ("up", "cpu")),
    Measurement("down", _flow("down", back=True), ("down",)),
    Measurement("four", _flow("four", flows=4), ("four",)),
    Measurement("forward", through_a_forward("forward"), ("forward",)),
    Measurement("forward-down", through_a_forward("forward-down", back=True), ("forward-down",)),
    Measurement("idle", _idle, ("idle", "idle-p99")),
    Measurement("loaded", _loaded, ("loaded", "loaded-p99", "loaded-lost")),
    Measurement("pps", _small, ("pps",)),
    Measurement("rss", _memory, ("rss",)),
    Measurement("rest", _rest, ("wakes",)),
    Measurement("join", _join, ("join",)),
    Measurement("held", _held, ("rss", "descriptors")),
    *gridfigures.MEASUREMENTS,
)


def has_congestion_control(name: str) -> bool:
    """Whether this kernel's TCP has a congestion control. Asking loads its module if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except OSError:
            return False
    return True
