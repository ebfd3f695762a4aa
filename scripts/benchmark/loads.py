"""The loads: TCP flows by iperf3, pings, a flood of small datagrams. Each is bounded in time and raises BenchError."""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmark import flood
from benchmark.errors import BenchError
from benchmark.namespaces import Machine, Process, until
from benchmark.readings import RoundTrips, Transfer, read_flood, read_iperf, read_ping

FLOOD = Path(flood.__file__)
PINGS_IDLE, EVERY_IDLE = 600, 0.002
EVERY_LOADED = 0.005
LEAD = 0.3  # for a flow to get going before the first ping
PATIENCE = 8.0  # seconds that a load may take beyond its own

_ports = itertools.count(20000)


def tcp(
    a: Machine, b: Machine, far: str, seconds: float, *, flows: int = 1, back: bool = False, congestion: str = ""
) -> Transfer:
    """So many TCP flows from a to b, or back."""
    with _iperf_server(b) as port:
        command = _iperf_client(far, port, seconds, flows, back, congestion)
        return read_iperf(a.run(*command, timeout=seconds + PATIENCE, check=False).stdout)


def pings(a: Machine, far: str) -> RoundTrips:
    """From a to b, which has nothing else to do."""
    wanted = ["-c", str(PINGS_IDLE), "-i", str(EVERY_IDLE)]
    return read_ping(a.run("ping", "-n", *wanted, "-w", "6", far, timeout=6 + PATIENCE, check=False).stdout)


def pings_under_load(a: Machine, b: Machine, far: str, seconds: float) -> RoundTrips:
    """From a to b, while a TCP flow goes the same way."""
    with flow(a, b, far, seconds + LEAD + 1):
        time.sleep(LEAD)
        wanted = ["-c", str(int(seconds / EVERY_LOADED)), "-i", str(EVERY_LOADED), "-W", "1"]
        return read_ping(a.run("ping", "-n", *wanted, far, timeout=seconds + PATIENCE, check=False).stdout)


@contextlib.contextmanager
def flow(a: Machine, b: Machine, far: str, seconds: float, *, back: bool = False) -> Iterator[Callable[[], Transfer]]:
    """One TCP flow meanwhile; what is yielded waits for its end. It must not be over before."""
    with _iperf_server(b) as port:
        client = a.start(*_iperf_client(far, port, seconds, 1, back, ""))

        def result() -> Transfer:
            client.wait(seconds + PATIENCE)
            return read_iperf(client.log)

        try:
            yield result
            if not client.running:
                result()  # says why
        finally:
            a.forget(client)


def small_datagrams(a: Machine, b: Machine, far: str, seconds: float) -> float:
    """How many of them reach b in a second, while a sends as many as it can."""
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
    """Meanwhile so many big datagrams a second are sent to an address, whether they arrive or not."""
    sender = machine.start(sys.executable, FLOOD, "offer", far, str(next(_ports)), str(rate))
    try:
        yield
        if not sender.running:
            raise BenchError(f"the sender of datagrams has ended: {sender.tail()}")
    finally:
        machine.forget(sender)


@contextlib.contextmanager
def _iperf_server(machine: Machine) -> Iterator[str]:
    """An iperf3 server for one test, ready; its port."""
    port = str(next(_ports))
    server: Process = machine.start("iperf3", "--server", "--one-off", "--forceflush", "--port", port)
    try:
        if not until(lambda: "listening" in server.log or not server.running, 5):
            raise BenchError(f"iperf3 does not listen: {server.tail()}")
        yield port
    finally:
        machine.forget(server)


def _iperf_client(far: str, port: str, seconds: float, flows: int, back: bool, congestion: str) -> list[str]:
    command = ["iperf3", "--json", "--client", far, "--port", port, "--time", f"{seconds:g}"]
    command += ["--parallel", str(flows), "--connect-timeout", "3000"]
    return command + ["--reverse"] * back + (["--congestion", congestion] if congestion else [])
