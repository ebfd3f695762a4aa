"""Run a plan. For each path, set up all tunnels side by side, and then run each load over one tunnel after the other.

1. Within a round, each load runs on every subject in turn, so readings that are compared are only seconds apart.
2. Tunnels that wait should use hardly any processor time. This is checked, and noted where it is not so.
3. A tunnel that ends or does not start misses its reading, and its last output is noted. It is started again for the
   next reading, at most `MOST_STARTS` times.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from benchmark import table
from benchmark.errors import BenchError
from benchmark.figures import MEASUREMENTS
from benchmark.machines import Machine, two_machines
from benchmark.measuring import Bench, Measurement
from benchmark.paths import PATHS, Path, laid
from benchmark.plan import Plan
from benchmark.results import Results
from benchmark.subjects import Subject, Tunnel

MOST_STARTS = 3  # of a tunnel on one path
SETTLE = 0.15  # seconds between two loads, for queues to empty
STRAY = 0.1  # share of a processor above which a waiting tunnel is noted

Say = Callable[[str], None]


def run(plan: Plan, subjects: Sequence[Subject], results: Results, say: Say) -> None:
    """Add all readings to `results`. A path that cannot be set up is noted and left out."""
    for path in PATHS:
        part = plan.parts.get(path.name)
        chosen = [subject for subject in subjects if measured_on(subject, path)]
        if part is None or not chosen:
            continue
        say(f"{path.name}: {path.title}")
        wanted = [each for each in MEASUREMENTS if each.name in part.measurements]
        with two_machines() as (a, b):
            try:
                with laid(path, a, b) as verify:
                    with _tunnels(chosen, a, b) as tunnels:
                        bench = Bench(a, b, path.device, plan.seconds_on(path.name))
                        _PathRun(path, tunnels, bench, results, say).run(wanted, part.rounds)
                    results.notes += [f"{path.name}: {line}" for line in verify()]
            except BenchError as failed:
                results.notes.append(f"{path.name}: {failed}")
                say(results.notes[-1])


def measured_on(subject: Subject, path: Path) -> bool:
    """Whether a subject is measured on a path: hubs and floods have their own, and only some are on the grid. Pure."""
    if subject.only_on:
        return path.name in subject.only_on
    return not path.apart and (subject.grid or path.point is None)


@contextlib.contextmanager
def _tunnels(subjects: Sequence[Subject], a: Machine, b: Machine) -> Iterator[list[Tunnel]]:
    tunnels = [Tunnel(subject, a, b, number) for number, subject in enumerate(subjects, 1)]
    try:
        yield tunnels
    finally:
        for tunnel in tunnels:
            tunnel.stop()


class _PathRun:
    def __init__(self, path: Path, tunnels: Sequence[Tunnel], bench: Bench, results: Results, say: Say) -> None:
        self._path, self._tunnels, self._bench, self._results, self._say = path, tunnels, bench, results, say
        self._starts: Counter[str] = Counter()

    def run(self, measurements: Sequence[Measurement], rounds: int) -> None:
        for number in range(rounds):
            for measurement in measurements:
                shown = [self._take(measurement, tunnel, number) for tunnel in self._tunnels]
                self._say(f"  round {number + 1}/{rounds} {measurement.name:7} " + "  ".join(filter(None, shown)))

    def _take(self, measurement: Measurement, tunnel: Tunnel, number: int) -> str:
        if not tunnel.started and self._starts[tunnel.name] == MOST_STARTS:
            return ""
        try:
            if not tunnel.started:
                self._starts[tunnel.name] += 1
                tunnel.start()
            with tunnel.meanwhile():
                started, before = time.monotonic(), self._spent(tunnel)
                readings = measurement.take(self._bench, tunnel)
                self._note_strays(before, time.monotonic() - started, f"{tunnel.name}'s {measurement.name}")
        except BenchError as failed:
            self._note(f"{tunnel.name}, {measurement.name}: {failed}")
            if tunnel.started and not tunnel.running:
                self._note(f"{tunnel.name} has ended; its last output\n{tunnel.last_words()}")
                tunnel.stop()
            return f"{tunnel.name} failed"
        self._results.record(self._path.name, tunnel.name, number, readings)
        time.sleep(SETTLE)
        shown = [table.number(value) for name in measurement.gives if (value := readings.get(name)) is not None]
        return f"{tunnel.name} {' '.join(shown)}" if shown else ""

    def _spent(self, busy: Tunnel) -> dict[str, float]:
        """The processor seconds so far of all running tunnels except the busy one."""
        return {each.name: each.processor_seconds() for each in self._tunnels if each is not busy and each.running}

    def _note_strays(self, before: dict[str, float], seconds: float, during: str) -> None:
        for each in self._tunnels:
            if each.name in before and each.running:
                spent = each.processor_seconds() - before[each.name]
                if spent > max(0.05, STRAY * seconds):
                    self._note(f"{each.name} used {spent:.2f} s of processor time although idle, during {during}")

    def _note(self, text: str) -> None:
        self._results.notes.append(f"{self._path.name}: {text}")
        self._say(f"  {text}")
