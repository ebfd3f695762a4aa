"""What iperf3 and ping print, as numbers. Pure: text in, readings out; only BenchError leaves."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from benchmark.errors import BenchError
from benchmark.ratios import percentile


@dataclass(frozen=True)
class Transfer:
    """What the receiver of one or more TCP flows got, and how often the senders sent again."""

    nbytes: int
    seconds: float
    repeated: int

    @property
    def mbits(self) -> float:
        return self.nbytes * 8 / self.seconds / 1e6


@dataclass(frozen=True)
class RoundTrips:
    """In microseconds; `lost` is the share of pings without an answer."""

    median: float
    p99: float
    lost: float


def read_iperf(text: str) -> Transfer:
    """From `iperf3 --json`."""
    try:
        report = json.loads(text)
        if "error" in report:
            raise BenchError(f"iperf3: {report['error']}")
        end = report["end"]
        received = end["sum_received"]
        transfer = Transfer(int(received["bytes"]), float(received["seconds"]), end["sum_sent"].get("retransmits", 0))
    except (ValueError, KeyError, TypeError) as unreadable:
        raise BenchError(f"iperf3 has printed something else than its report: {text.strip()[-200:]!r}") from unreadable
    if transfer.seconds <= 0:
        raise BenchError("iperf3 has measured no time")
    return transfer


def read_ping(text: str) -> RoundTrips:
    """From ping's lines, which come one an answer, and its summary."""
    times = [float(found) * 1000 for found in re.findall(r"time=(\d+\.?\d*) ms", text)]
    sent = re.search(r"^(\d+) packets transmitted", text, re.MULTILINE)
    if not times or not sent or not int(sent[1]):
        raise BenchError(f"ping had no answer: {text.strip()[-200:]!r}")
    return RoundTrips(percentile(times, 50), percentile(times, 99), max(0.0, 1 - len(times) / int(sent[1])))


def read_flood(text: str) -> float:
    """Datagrams a second, from flood.py's receiver."""
    counted = re.search(r"^(\d+) (\d+\.?\d*)$", text, re.MULTILINE)
    if not counted or not float(counted[2]):
        raise BenchError(f"no small datagram has arrived: {text.strip()[-200:]!r}")
    return int(counted[1]) / float(counted[2])
