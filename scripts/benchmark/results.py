"""The readings of a run, by path, subject and figure, with one for each round. Pure except `machine`."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.ratios import difference, median, ratio, ratios

Rounds = list["float | None"]


class Results:
    def __init__(self) -> None:
        self._readings: dict[str, dict[str, dict[str, Rounds]]] = {}
        self.notes: list[str] = []

    def record(self, path: str, subject: str, number: int, readings: Mapping[str, float | None]) -> None:
        """Add the readings of a round. Earlier rounds without a reading become None."""
        for figure, value in readings.items():
            rounds = self._readings.setdefault(path, {}).setdefault(subject, {}).setdefault(figure, [])
            rounds.extend([None] * (number - len(rounds)))
            rounds.append(value)

    def paths(self) -> list[str]:
        return list(self._readings)

    def subjects(self, path: str) -> list[str]:
        return list(self._readings.get(path, {}))

    def rounds(self, path: str, subject: str, figure: str) -> Rounds:
        return self._readings.get(path, {}).get(subject, {}).get(figure, [])

    def median(self, path: str, subject: str, figure: str) -> float | None:
        return median(self.rounds(path, subject, figure))

    def ratio(self, path: str, subject: str, figure: str, to: str) -> float | None:
        """The median of the ratios within the rounds."""
        return ratio(self.rounds(path, subject, figure), self.rounds(path, to, figure))

    def difference(self, path: str, subject: str, figure: str, to: str) -> float | None:
        """The median of the differences within the rounds."""
        return difference(self.rounds(path, subject, figure), self.rounds(path, to, figure))

    def as_json(self) -> dict[str, Any]:
        """All readings, and the ratios of each subject to every other one."""
        return {
            path: {
                subject: {
                    figure: {
                        "rounds": rounds,
                        "median": median(rounds),
                        "ratios": {
                            other: {"rounds": ratios(rounds, theirs), "median": ratio(rounds, theirs)}
                            for other in subjects
                            if other != subject and (theirs := self.rounds(path, other, figure))
                        },
                    }
                    for figure, rounds in figures.items()
                }
                for subject, figures in subjects.items()
            }
            for path, subjects in self._readings.items()
        }


def _build() -> str:
    """How this interpreter was built: one built without profile-guided optimization (PGO) is some 10% slower."""
    if "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")):
        return "built with PGO"
    return "the distribution's" if sys.base_prefix == "/usr" else "built without PGO"


def machine() -> dict[str, str]:
    """Describe the machine on which the benchmark runs."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": model[1] if model else platform.machine(),
        "processors": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": f"{platform.python_version()} ({_build()})",
        "TCP": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }
