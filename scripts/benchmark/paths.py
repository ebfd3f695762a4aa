"""The paths between the two machines: a plain veth pair, one without offloads, ones with loss, and the grid's points.

1. With the offloads of the veth pair on, a burst crosses it as one buffer, and netfilter counts and drops it as one
   packet. So the paths with loss have offloads off, and counters of rules verify that single datagrams were lost.
2. The program wan.c carries the grid's paths (grid.py) with their rate, delay, queue and loss.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmark import offloads, wan
from benchmark.errors import BenchError
from benchmark.grid import POINTS, Point
from benchmark.machines import Machine

VETH = "veth0"
MTU = 1500
Verify = Callable[
    [], list[str]
]  # returns the path's report, in lines; raises BenchError if the path was not as specified


@dataclass(frozen=True)
class Path:
    """A path. `loss` is the share of datagrams lost in each direction."""

    name: str
    title: str
    loss: float = 0.0
    offloads: bool = False
    apart: bool = False  # whether it has subjects of its own, which are measured here instead of the others
    point: Point | None = None  # the point of the grid that it is

    @property
    def device(self) -> str:
        """The name of the path's device at both ends."""
        return wan.DEVICE if self.point else VETH


PATHS = (
    Path("veth", "a veth pair", offloads=True),
    Path("hub", "a veth pair to a hub, whose other link is idle or blocked", offloads=True, apart=True),
    Path("flood", "a veth pair to a server, 5,000 handshakes a second beside the link", offloads=True, apart=True),
    Path("no-offloads", "a veth pair, offloads off"),
    Path("loss-0.1", "a veth pair, offloads off, 0.1% of the datagrams lost", loss=0.001),
    Path("loss-1", "a veth pair, offloads off, 1% of the datagrams lost", loss=0.01),
    *(Path(point.name, point.title, point=point) for point in POINTS),
)


@contextlib.contextmanager
def laid(path: Path, a: Machine, b: Machine) -> Iterator[Verify]:
    """Connect the two machines by this path during the body."""
    with _grid(path.point, a, b) if path.point else _veth(path, a, b) as verify:
        yield verify


@contextlib.contextmanager
def _grid(point: Point, a: Machine, b: Machine) -> Iterator[Verify]:
    with wan.carrying(point, MTU, a, b) as process:
        _address(wan.DEVICE, a, b)
        yield lambda: wan.report(process)


@contextlib.contextmanager
def _veth(path: Path, a: Machine, b: Machine) -> Iterator[Verify]:
    a.cable(VETH, b)
    try:
        if not path.offloads:
            for machine in (a, b):
                offloads.switch_off(machine.name, VETH)
        _address(VETH, a, b)
        with _losing(path.loss, (a, b)) if path.loss else contextlib.nullcontext(list) as verify:
            yield verify
    finally:
        a.ip("link", "del", VETH)


def _address(device: str, a: Machine, b: Machine) -> None:
    for machine in (a, b):
        machine.ip("address", "add", f"{machine.outer}/24", "dev", device)
        machine.ip("link", "set", device, "up")


@contextlib.contextmanager
def _losing(share: float, machines: Sequence[Machine]) -> Iterator[Verify]:
    """Drop this share of the packets that arrive at each machine.

    Three rules count all packets, those that are too big to be a single one, and the dropped ones.
    """
    rules = (
        ["-m", "length", "--length", "0:65535"],
        ["-m", "length", "--length", f"{MTU + 1}:65535"],
        ["-m", "statistic", "--mode", "random", "--probability", f"{share:g}", "-j", "DROP"],
    )
    tool = _iptables(machines[0])
    for machine in machines:
        for rule in rules:
            machine.run(tool, "-w", "-A", "INPUT", "-i", VETH, *rule)

    def verify() -> list[str]:
        return [line for machine in machines for line in said_of_loss(machine.name, counters(tool, machine), share)]

    try:
        yield verify
    finally:
        for machine in machines:
            machine.run(tool, "-w", "-F", "INPUT")


def counters(tool: str, machine: Machine) -> list[int]:
    """The number of packets that each rule of INPUT has matched."""
    listed = machine.run(tool, "-w", "-nvxL", "INPUT").stdout
    return [int(found) for found in re.findall(r"^ *(\d+) +\d+ .*" + VETH, listed, re.MULTILINE)]


def said_of_loss(name: str, counted: Sequence[int], share: float) -> list[str]:
    """Describe the loss, or raise BenchError if readings are worthless: wrong share, or bursts lost whole. Pure."""
    arrived, too_big, lost = counted
    if too_big:
        raise BenchError(
            f"{too_big} of {arrived} packets that arrived at {name} were more than one, so whole bursts were lost"
        )
    expected = arrived * share
    if abs(lost - expected) > 6 * max(expected, 25) ** 0.5:
        raise BenchError(
            f"{lost} of {arrived} packets that arrived at {name} were lost, {expected:.0f} should have been"
        )
    return [f"{name} lost {lost} of {arrived} packets, {lost / max(arrived, 1):.2%}, each a single one"]


def _iptables(machine: Machine) -> str:
    """The variant of iptables that this kernel supports."""
    for tool in ("iptables", "iptables-nft", "iptables-legacy"):
        with contextlib.suppress(BenchError, FileNotFoundError):
            machine.run(tool, "-w", "-A", "OUTPUT", "-m", "statistic", "--mode", "random", "--probability", "0.5")
            machine.run(tool, "-w", "-F", "OUTPUT")
            return tool
    raise BenchError("the veth pair cannot lose packets: iptables or its match 'statistic' is missing")
