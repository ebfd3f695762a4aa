"""The loads: TCP flows by iperf3, pings, a flood of small datagrams. Each has a time limit and raises BenchError."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from benchmark import flood
from benchmark.errors import BenchError
from benchmark.machines import Machine, Process
from benchmark.readings import (
    INTERVAL,
    Observed,
    RoundTrips,
    Transfer,
    read_flood,
    read_iperf,
    read_observed,
    read_ping,
)
from namespaces import until

FLOOD = Path(flood.__file__)
PINGS_IDLE, EVERY_IDLE = 600, 0.002
EVERY_LOADED = 0.005
LEAD = 0.3  # seconds between the start of a flow and the first ping
PATIENCE = 8.0  # seconds that a load may take beyond its duration

_ports = itertools.count(20000)
_REPORT = ("--json", "--interval", str(INTERVAL))


def tcp(a: Machine, b: Machine, far: str, seconds: float, *, flows: int = 1, back: bool = False) -> Transfer:
    """Run TCP flows from a to b, or from b to a if `back`."""
    with _iperf_server(b) as (port, _):
        command = _iperf_client(far, port, seconds, flows, back)
        return read_iperf(a.run(*command, timeout=seconds + PATIENCE, check=False).stdout)


def tcp_through(
    a: Machine, b: Machine, forward: Callable[[int], AbstractContextManager[str]], seconds: float, *, back: bool = False
) -> Transfer:
    """Run a TCP flow between a and b through a forward; `forward` makes one to a port of b, and yields its address."""
    with _iperf_server(b) as (port, _), forward(port) as place:
        command = _iperf_client(place, port, seconds, 1, back)
        return read_iperf(a.run(*command, timeout=seconds + PATIENCE, check=False).stdout)


def pings(a: Machine, far: str) -> RoundTrips:
    """Ping from a to b over an otherwise idle path."""
    wanted = ["-c", str(PINGS_IDLE), "-i", str(EVERY_IDLE)]
    return read_ping(a.run("ping", "-n", *wanted, "-w", "6", far, timeout=6 + PATIENCE, check=False).stdout)


def pings_under_load(a: Machine, b: Machine, far: str, seconds: float) -> RoundTrips:
    """Ping from a to b while a TCP flow runs in the same direction."""
    with flow(a, b, far, seconds + LEAD + 1):
        time.sleep(LEAD)
        return pings_beside(a, far, seconds, EVERY_LOADED)


def pings_beside(a: Machine, far: str, seconds: float, every: float) -> RoundTrips:
    """Ping from a to b for this many seconds, beside any other traffic."""
    wanted = ["-c", str(int(seconds / every)), "-i", str(every), "-W", "1"]
    return read_ping(a.run("ping", "-n", *wanted, far, timeout=seconds + PATIENCE, check=False).stdout)


@contextlib.contextmanager
def observed(
    a: Machine, b: Machine, far: str, seconds: float, congestion: str, *, flows: int = 1, back: bool = False
) -> Iterator[Callable[[], Observed]]:
    """Run TCP flows with a named congestion control during the body. The yielded function waits for their end."""
    with _iperf_server(b) as (port, server):
        client = a.start(*_iperf_client(far, port, seconds, flows, back), "--congestion", congestion)

        def result() -> Observed:
            client.wait(seconds + PATIENCE)
            read_iperf(client.log)  # raises iperf3's error, if there is one
            server.wait(PATIENCE)
            receiver, sender = (client, server) if back else (server, client)
            return read_observed(receiver.log, sender.log)

        try:
            yield result
        finally:
            a.forget(client)


@contextlib.contextmanager
def flow(a: Machine, b: Machine, far: str, seconds: float, *, back: bool = False) -> Iterator[Callable[[], Transfer]]:
    """Run one TCP flow, which must outlast the body. The yielded function waits for its end."""
    with _iperf_server(b) as (port, _):
        client = a.start(*_iperf_client(far, port, seconds, 1, back))

        def result() -> Transfer:
            client.wait(seconds + PATIENCE)
            return read_iperf(client.log)

        try:
            yield result
            if not client.running:
                result()  # raises the reason
        finally:
            a.forget(client)


def small_datagrams(a: Machine, b: Machine, far: str, seconds: float) -> float:
    """Measure how many small datagrams reach b each second while a sends as many as it can."""
    port = str(next(_ports))
    receiver = b.start(sys.executable, FLOOD, "receive", port, f"{seconds:g}")
    try:
        if not until(lambda: "ready" in receiver.log, 5):
            raise BenchError(f"the receiver of small datagrams has not started: {receiver.tail()}")
        a.run(sys.executable, FLOOD, "send", far, port, f"{seconds + 0.5:g}", timeout=seconds + PATIENCE)
        receiver.wait(PATIENCE)
        return read_flood(receiver.log)
    finally:
        b.forget(receiver)


@contextlib.contextmanager
def offered(machine: Machine, far: str, rate: int) -> Iterator[None]:
    """Send this many big datagrams a second to an address during the body, whether or not they arrive."""
    sender = machine.start(sys.executable, FLOOD, "offer", far, str(next(_ports)), str(rate))
    try:
        yield
        if not sender.running:
            raise BenchError(f"the sender of datagrams has ended: {sender.tail()}")
    finally:
        machine.forget(sender)


@contextlib.contextmanager
def _iperf_server(machine: Machine) -> Iterator[tuple[int, Process]]:
    """Start an iperf3 server for one test; yield its port and its process once it listens."""
    port = next(_ports)
    server = machine.start("iperf3", "--server", "--one-off", *_REPORT, "--port", str(port))
    try:
        if not until(lambda: machine.listens(port) or not server.running, 5) or not server.running:
            raise BenchError(f"iperf3 does not listen: {server.tail()}")
        yield port, server
    finally:
        machine.forget(server)


def _iperf_client(far: str, port: int, seconds: float, flows: int, back: bool) -> list[str]:
    command = ["iperf3", *_REPORT, "--client", far, "--port", str(port), "--time", f"{seconds:g}"]
    return [*command, "--parallel", str(flows), "--connect-timeout", "3000"] + ["--reverse"] * back
