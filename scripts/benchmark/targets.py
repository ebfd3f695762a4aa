"""The targets of vpntun, measured against others in one run on one machine; gridtargets.py has the grid's. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmark.grid import CONGESTIONS
from benchmark.plan import FORWARDS
from benchmark.results import Results
from benchmark.subjects import BARE

UDP, TCP, MIXED = "vpntun-udp", "vpntun-tcp", "vpntun-wg"
OPENVPN = {UDP: "openvpn-udp", TCP: "openvpn-tcp"}
TAP = {UDP: "vpntun-tap-udp", TCP: "vpntun-tap-tcp"}
OTHER_TAPS = ("openvpn-tap", "tinc-switch")  # both over UDP, which is the faster of their carriers
WIREGUARD = "wireguard-go"
BOUND = "bound"
NOISE = 1.2  # factor by which medians of round trips may differ by chance
HUB, BLOCKED = "hub", "hub-blocked"
SERVER, JUNK, VALID = "server", "server-junk", "server-mac1"
COMPARED = (
    (UDP, BARE),
    (TCP, BARE),
    (UDP, BOUND),
    (TCP, BOUND),
    (UDP, OPENVPN[UDP]),
    (TCP, OPENVPN[TCP]),
    (UDP, WIREGUARD),
    (TCP, WIREGUARD),
    (MIXED, WIREGUARD),
    *((tap, tun) for tun, tap in TAP.items()),
    *((tap, other) for tap in TAP.values() for other in OTHER_TAPS),
    (BLOCKED, HUB),
    (JUNK, SERVER),
    (VALID, SERVER),
)


@dataclass(frozen=True)
class Target:
    """A bound for a subject's figure itself, for its ratio to another subject's, or for the difference from it."""

    path: str
    figure: str
    subject: str
    to: str | None
    bound: float
    at_most: bool = False
    minus: bool = False  # the difference is bounded, not the ratio

    def value(self, results: Results) -> float | None:
        if self.to is None:
            return results.median(self.path, self.subject, self.figure)
        compared = results.difference if self.minus else results.ratio
        return compared(self.path, self.subject, self.figure, self.to)

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "not measured"
        return "met" if (value <= self.bound if self.at_most else value >= self.bound) else "MISSED"


def _all() -> Iterator[Target]:
    for flow in ("up", "down"):
        yield Target("veth", flow, TCP, OPENVPN[TCP], 8)
        yield Target("veth", flow, TCP, BARE, 0.4)
        yield Target("veth", flow, UDP, OPENVPN[UDP], 6)
        yield Target("veth", flow, UDP, BARE, 0.3)
    for flow in ("up", "down"):
        for subject in (TCP, UDP):
            yield Target("no-offloads", flow, subject, OPENVPN[subject], 6)
    for flow in ("up", "down"):
        yield Target("loss-1", flow, UDP, OPENVPN[UDP], 2)
    yield from _to_the_bound()
    yield from _to_wireguard()
    yield from _of_taps()
    for flow in ("up", "down"):
        yield Target("hub", flow, BLOCKED, HUB, 0.9)
    for trip in ("idle", "loaded"):
        yield Target("hub", trip, BLOCKED, HUB, NOISE, at_most=True)
    for subject, least in ((JUNK, 0.8), (VALID, 0.6)):
        for flow in ("up", "down"):
            yield Target("flood", flow, subject, SERVER, least)
        yield Target("flood", "join", subject, None, 10, at_most=True)
        yield Target("flood", "rss", subject, SERVER, 8, at_most=True, minus=True)
        yield Target("flood", "descriptors", subject, SERVER, 0, at_most=True, minus=True)
    for flow in FORWARDS:
        for subject in (UDP, TCP):
            yield Target("veth", flow, subject, None, 70)
    yield Target("veth", "idle", UDP, OPENVPN[UDP], 1.2, at_most=True)
    for subject in (UDP, TCP):
        yield Target("veth", "loaded-p99", subject, OPENVPN[subject], 1, at_most=True)
    yield Target("veth", "pps", UDP, OPENVPN[UDP], 1.7)
    for subject in (UDP, TCP):
        yield Target("veth", "cpu", subject, OPENVPN[subject], 0.2, at_most=True)
    for subject in (UDP, TCP, MIXED):
        yield Target("veth", "rss", subject, None, 64, at_most=True)
    for subject in (UDP, TCP):
        yield Target("veth", "wakes", subject, None, 1, at_most=True)


def _to_the_bound() -> Iterator[Target]:
    """The targets beside a loop in Python that checks nothing (bound.py)."""
    for subject, least, most in ((TCP, 0.9, 1.15), (UDP, 0.85, 1.25)):
        for flow in ("up", "down"):
            yield Target("veth", flow, subject, BOUND, least)
        yield Target("veth", "cpu", subject, BOUND, most, at_most=True)
        yield Target("veth", "idle", subject, BOUND, 1.15, at_most=True)


def _to_wireguard() -> Iterator[Target]:
    """The targets beside the newest wireguard-go."""
    for path in ("veth", "no-offloads"):
        for subject in (UDP, TCP):
            for flow in ("up", "down"):
                yield Target(path, flow, subject, WIREGUARD, 2)
    for subject in (UDP, TCP):
        yield Target("veth", "pps", subject, WIREGUARD, 4)
    for path in ("loss-0.1", "loss-1"):
        for congestion in CONGESTIONS:
            yield Target(path, congestion, UDP, WIREGUARD, 1)
    for flow in ("up", "down"):
        yield Target("veth", flow, MIXED, WIREGUARD, 1)


def _of_taps() -> Iterator[Target]:
    """The targets of TAP devices, beside vpntun's TUN devices over the same carrier and beside others' TAP devices."""
    for flow in ("up", "down"):
        for tun, tap in TAP.items():
            yield Target("veth", flow, tap, tun, 0.9)
            for other in OTHER_TAPS:
                yield Target("veth", flow, tap, other, 2.5)


TARGETS = tuple(_all())
