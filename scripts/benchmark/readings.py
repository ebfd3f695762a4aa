"""Parsers of the output of iperf3, ping and flood.py. Pure: text in, readings out; they raise only BenchError."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.errors import BenchError
from benchmark.ratios import percentile

INTERVAL = 0.1  # seconds between two reports of an observed flow's receiver
HALF_AN_INTERVAL = INTERVAL / 2  # tolerance, since the reports are not exactly on time


@dataclass(frozen=True)
class Transfer:
    """Bytes and seconds of one or more TCP flows at their receiver, and the segments that the senders sent again."""

    nbytes: int
    seconds: float
    repeated: int

    @property
    def mbits(self) -> float:
        return self.nbytes * 8 / self.seconds / 1e6


@dataclass(frozen=True)
class Interval:
    """Part of a flow at its receiver: seconds since the start of the flow, and the bytes that arrived meanwhile."""

    start: float
    end: float
    nbytes: int

    @property
    def mbits(self) -> float:
        return self.nbytes * 8 / (self.end - self.start) / 1e6


@dataclass(frozen=True)
class Observed:
    """The course of one or more TCP flows at their receiver, and the segments that the senders sent again."""

    intervals: Sequence[Interval]
    repeated: int

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.intervals)

    def mbits(self, after: float) -> float:
        """The rate from this second on."""
        later = [each for each in self.intervals if each.start >= after - HALF_AN_INTERVAL]
        if not later:
            raise BenchError(f"the flow was over within {after:g} s")
        return Interval(later[0].start, later[-1].end, sum(each.nbytes for each in later)).mbits

    def start(self, share: float = 0.9) -> float:
        """The end of the first interval whose rate is at least this share of the rate in the flow's second half."""
        wanted = share * self.mbits(self.intervals[-1].end / 2)
        return next(each.end for each in self.intervals if each.mbits >= wanted)


@dataclass(frozen=True)
class RoundTrips:
    """Round trips in microseconds. `lost` is the share of pings without an answer."""

    median: float
    p99: float
    lost: float


def read_iperf(text: str) -> Transfer:
    """Parse the output of `iperf3 --json`."""
    try:
        end = _report(text)["end"]
        received = end["sum_received"]
        transfer = Transfer(int(received["bytes"]), float(received["seconds"]), end["sum_sent"].get("retransmits", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as unreadable:
        raise _unreadable(text) from unreadable
    if transfer.seconds <= 0:
        raise BenchError("iperf3 reports a duration of 0")
    return transfer


def read_observed(receiver: str, sender: str) -> Observed:
    """Parse the reports of both ends; the receiver's must have short intervals."""
    try:
        sums = [each["sum"] for each in _report(receiver)["intervals"]]
        found = [Interval(float(each["start"]), float(each["end"]), int(each["bytes"])) for each in sums]
    except (ValueError, KeyError, TypeError, AttributeError) as unreadable:
        raise _unreadable(receiver) from unreadable
    # The last interval may be too short to have a meaningful rate.
    intervals = [each for each in found if each.end - each.start > HALF_AN_INTERVAL]
    if not intervals:
        raise BenchError("iperf3 reports no intervals")
    try:
        return Observed(intervals, int(_report(sender)["end"]["sum_sent"].get("retransmits", 0)))
    except (ValueError, KeyError, TypeError, AttributeError) as unreadable:
        raise _unreadable(sender) from unreadable


def _report(text: str) -> dict[str, Any]:
    report = json.loads(text)
    if "error" in report:
        raise BenchError(f"iperf3: {report['error']}")
    if not isinstance(report, dict):
        raise _unreadable(text)
    return report


def _unreadable(text: str) -> BenchError:
    return BenchError(f"the output of iperf3 is not a report: {text.strip()[-200:]!r}")


def read_ping(text: str) -> RoundTrips:
    """Parse ping's lines, one for each answer, and its summary."""
    times = [float(found) * 1000 for found in re.findall(r"time=(\d+\.?\d*) ms", text)]
    sent = re.search(r"^(\d+) packets transmitted", text, re.MULTILINE)
    if not times or not sent or not int(sent[1]):
        raise BenchError(f"ping got no answer: {text.strip()[-200:]!r}")
    return RoundTrips(percentile(times, 50), percentile(times, 99), max(0.0, 1 - len(times) / int(sent[1])))


def read_flood(text: str) -> float:
    """Parse the output of flood.py's receiver; return datagrams a second."""
    counted = re.search(r"^(\d+) (\d+\.?\d*)$", text, re.MULTILINE)
    if not counted or not float(counted[2]):
        raise BenchError(f"no small datagram arrived: {text.strip()[-200:]!r}")
    return int(counted[1]) / float(counted[2])
