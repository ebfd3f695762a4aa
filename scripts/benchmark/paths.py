"""The paths between the two machines: a veth pair as it is, without offloads, with loss; and the points of the grid.

1. With the veth's offloads on, a burst crosses it as one buffer, and netfilter counts and drops it as one packet. So
   loss comes with the offloads off, and the rules' counters show that it was single datagrams that were lost.
2. The grid (grid.py) is carried by a program of its own, wan.c: rate, delay, queue, loss.
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
Verify = Callable[[], list[str]]  # what the path says of itself at the end, a line each; BenchError if it was not so


@dataclass(frozen=True)
class Path:
    """`loss` is the share of datagrams, each way."""

    name: str
    title: str
    loss: float = 0.0
    offloads: bool = False
    hub: bool = False  # where the hubs are measured, in place of all others
    point: Point | None = None  # of the grid

    @property
    def device(self) -> str:
        """Its name at both ends."""
        return wan.DEVICE if self.point else VETH


PATHS = (
    Path("veth", "a veth pair", offloads=True),
    Path("hub", "a veth pair to a hub, whose other link is left alone or held blocked", offloads=True, hub=True),
    Path("no-offloads", "a veth pair, its offloads off"),
    Path("loss-0.1", "a veth pair, offloads off, 0.1% of the datagrams lost", loss=0.001),
    Path("loss-1", "a veth pair, offloads off, 1% of the datagrams lost", loss=0.01),
    *(Path(point.name, point.title, point=point) for point in POINTS),
)


@contextlib.contextmanager
def laid(path: Path, a: Machine, b: Machine) -> Iterator[Verify]:
    """The path, laid between the two machines for as long as it is needed."""
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
    """Each machine loses so many of the packets that come in. Three rules: all, those too big to be one, the lost."""
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
    """How many packets each rule of INPUT has met."""
    listed = machine.run(tool, "-w", "-nvxL", "INPUT").stdout
    return [int(found) for found in re.findall(r"^ *(\d+) +\d+ .*" + VETH, listed, re.MULTILINE)]


def said_of_loss(name: str, counted: Sequence[int], share: float) -> list[str]:
    """Pure. A loss far from what was asked for, or of what is no single packet, makes the readings worthless."""
    arrived, too_big, lost = counted
    if too_big:
        raise BenchError(
            f"{too_big} of {arrived} packets that came to {name} were more than one: the loss is of bursts"
        )
    expected = arrived * share
    if abs(lost - expected) > 6 * max(expected, 25) ** 0.5:
        raise BenchError(f"{lost} of {arrived} packets that came to {name} were lost, {expected:.0f} should have been")
    return [f"{name} lost {lost} of {arrived} packets, {lost / max(arrived, 1):.2%}, each a single one"]


def _iptables(machine: Machine) -> str:
    """The variant of iptables that this kernel supports."""
    for tool in ("iptables", "iptables-nft", "iptables-legacy"):
        with contextlib.suppress(BenchError, FileNotFoundError):
            machine.run(tool, "-w", "-A", "OUTPUT", "-m", "statistic", "--mode", "random", "--probability", "0.5")
            machine.run(tool, "-w", "-F", "OUTPUT")
            return tool
    raise BenchError("no loss on the veth pair: iptables, or its match 'statistic', is not there")
