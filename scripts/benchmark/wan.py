"""Compile and start wan.c, the program that carries the paths of the grid."""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from benchmark.errors import BenchError
from benchmark.grid import Point
from benchmark.machines import TOOLS, WORK, Machine, Process
from namespaces import until

DEVICE = "wan0"
SOURCE = Path(__file__).with_name("wan.c")
COMPILER = "cc"
PACKAGES = "gcc libc6-dev"  # on Debian


def check_compiler() -> None:
    """Raise BenchError if the program cannot be compiled."""
    if shutil.which(COMPILER, path=TOOLS) is None:
        raise BenchError(
            f"{COMPILER} is not installed; a C program carries the grid's paths. On Debian: apt install {PACKAGES}"
        )


@functools.cache
def program() -> Path:
    """Return the program, compiled on the first call into the private folder of this run."""
    check_compiler()
    return compiled(WORK / "wan")


def compiled(target: Path) -> Path:
    """Compile the program to a file."""
    command = [COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[:5])
        raise BenchError(
            f"{SOURCE.name} does not compile; to install its headers on Debian: apt install {PACKAGES}\n{said}"
        )
    return target


def options(point: Point, mtu: int) -> list[str]:
    """The command's arguments for a point of the grid."""
    numbers = {"rate": point.rate, "delay": point.delay, "queue": point.queue, "loss": point.loss, "mtu": mtu}
    return [word for name, value in numbers.items() for word in (f"--{name}", f"{value:g}")]


@contextlib.contextmanager
def carrying(point: Point, mtu: int, a: Machine, b: Machine) -> Iterator[Process]:
    """Run the program between two machines during the body; their devices wan0 have no addresses yet."""
    process = a.start(program(), *options(point, mtu), a.name, b.name)
    try:
        if not until(lambda: "ready" in process.log or not process.running, 10) or not process.running:
            raise BenchError(f"wan did not start: {process.tail()}")
        yield process
    finally:
        a.forget(process)


def report(process: Process) -> list[str]:
    """End the program, and return its report on each direction."""
    process.stop()
    return [line for line in process.log.splitlines() if line != "ready"]
