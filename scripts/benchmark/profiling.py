"""Profile both ends of a vpntun tunnel while one TCP flow runs through it. Needs root.

    scripts/profile [--transport udp,tcp] [--tap] [--path veth] [--down] [--seconds 5] [--lines 12]

For each end it shows the load of the processor and the lines of Python at which the time is spent. System calls and the
AEAD count at the line that calls them (sampler.py). If perf is installed, it also shows the time by library and symbol,
including the kernel. `make profile` shows both transports over a plain veth pair.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark import loads, sampler
from benchmark.errors import BenchError
from benchmark.machines import CHECKOUT, TOOLS, WORK, Machine, Process, hide, two_machines
from benchmark.paths import PATHS, laid
from benchmark.subjects import Subject, Tunnel, vpntun
from namespaces import until

LEAD = 0.5  # seconds of the flow before the profile starts
WIDTH = 150
RECORD = ("perf", "record", "--quiet", "--event", "cpu-clock", "--freq", "997")
REPORT = ("perf", "report", "--stdio", "--sort", "dso,symbol")
ROLES = ("the client", "the server")
Sample = tuple[int, str, int, str]  # as in sampler.py


@dataclass(frozen=True)
class Line:
    """A share of an end's processor time."""

    share: float
    where: str
    what: str


@dataclass(frozen=True)
class Profile:
    """The profile of one end: its share of a processor, the lines of Python, and the symbols from perf."""

    busy: float
    lines: Sequence[Line]
    symbols: Sequence[Line]


def lines_of(samples: Sequence[Sample], most: int, root: Path = CHECKOUT) -> list[Line]:
    """Return the lines with the most samples, and their source."""
    total = sum(count for count, *_ in samples) or 1
    found = []
    for count, file, number, function in samples[:most]:
        path, source = Path(file), ""
        with contextlib.suppress(OSError, IndexError):
            source = path.read_text().splitlines()[number - 1].strip()
        name = path.relative_to(root) if path.is_relative_to(root) else path.name
        found.append(Line(count / total, f"{name}:{number} {function}", source))
    return found


def symbols_of(report: str, most: int) -> list[Line]:
    """Parse the output of `perf report --stdio --sort dso,symbol`."""
    found = re.findall(r"^ +([\d.]+)% +(\S+) +\[(.)\] (.+?)(?: +-)* *$", report, re.MULTILINE)
    return [Line(float(share) / 100, "kernel" if kind == "k" else dso, what) for share, dso, kind, what in found][:most]


def shown(lines: Sequence[Line]) -> Iterator[str]:
    """Format the lines for output: aligned, and cut to `WIDTH`."""
    width = max((len(line.where) for line in lines), default=0)
    for line in lines:
        yield f"  {line.share:6.1%}  {line.where:{width}}  {line.what}"[:WIDTH].rstrip()


def take(transport: str, options: argparse.Namespace) -> tuple[float, list[Profile]]:
    """Run a flow; return its Mbit/s and the profiles of both ends, the client's first."""
    path = next(each for each in PATHS if each.name == options.path)
    with two_machines() as (a, b), laid(path, a, b):
        files = {machine.name: WORK / f"{machine.name}.{transport}.samples" for machine in (a, b)}

        def sampled(machine: Machine) -> list[str | Path]:
            return [sys.executable, Path(sampler.__file__), files[machine.name]]

        start = vpntun(transport, sampled, kind="tap" if options.tap else "tun")
        tunnel = Tunnel(Subject(f"vpntun-{transport}", start), a, b, 1)
        tunnel.start()
        with loads.flow(a, b, tunnel.far, options.seconds + 2 * LEAD, back=options.down) as flow:
            time.sleep(LEAD)
            ends = tunnel.processes[::-1]  # the server was started first
            with _perf(b, ends) as reports:
                before = _order(ends, sampler.START)
                time.sleep(options.seconds)
                after = _order(ends, sampler.STOP)
            transfer = flow()
        profiles = []
        for number, machine in enumerate((a, b)):
            if not until(files[machine.name].exists, 5):
                raise BenchError(f"no profile of {ROLES[number]}: {ends[number].tail()}")
            samples = [tuple(each) for each in json.loads(files[machine.name].read_text())]
            symbols = symbols_of(reports[number], options.lines) if reports else []
            busy = (after[number] - before[number]) / options.seconds
            profiles.append(Profile(busy, lines_of(samples, options.lines), symbols))
        return transfer.mbits, profiles


def _order(ends: Sequence[Process], number: int) -> list[float]:
    """Send a signal to both samplers, and return their processor seconds so far."""
    for end in ends:
        os.kill(end.pid, number)
    return [end.processor_seconds() for end in ends]


@contextlib.contextmanager
def _perf(machine: Machine, ends: Sequence[Process]) -> Iterator[list[str]]:
    """Record both ends with perf during the body; then the yielded list has a report on each, or none without perf."""
    reports: list[str] = []
    if shutil.which("perf", path=TOOLS) is None:
        yield reports
        return
    recordings = []
    for end in ends:
        file = WORK / f"{end.pid}.perf"
        recordings.append((file, machine.start(*RECORD, "--output", file, "--pid", str(end.pid))))
    yield reports
    for file, recording in recordings:
        with contextlib.suppress(ProcessLookupError):
            os.kill(recording.pid, signal.SIGINT)
        recording.wait(5)
        reports.append(machine.run(*REPORT, "--input", file, check=False).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transport", default="udp,tcp", metavar="udp,tcp")
    parser.add_argument("--tap", action="store_true", help="carry Ethernet frames between TAP devices")
    parser.add_argument("--path", choices=[path.name for path in PATHS], default="veth")
    parser.add_argument("--down", action="store_true", help="run the flow from the server to the client")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--lines", type=int, default=12)
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("profile: root is required to make network namespaces and TUN devices", file=sys.stderr)
        return 1
    try:
        hide()
        for transport in options.transport.split(","):
            mbits, profiles = take(transport, options)
            print(f"vpntun over {transport}, one TCP flow {'down' if options.down else 'up'}: {mbits:,.0f} Mbit/s")
            for role, profile in zip(ROLES, profiles, strict=True):
                print(f"\n {role}, {profile.busy:.0%} of a processor")
                print("\n".join(shown(profile.lines)))
                if profile.symbols:
                    print("  by symbol (perf):")
                    print("\n".join(shown(profile.symbols)))
            print(flush=True)
    except BenchError as failed:
        print(f"profile: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
