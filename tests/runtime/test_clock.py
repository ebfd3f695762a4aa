"""The one clock of the program: it counts suspends, and no file reads another."""

from __future__ import annotations

import time
from pathlib import Path

import vpntun
from vpntun.runtime.clock import awake_time, boottime

FILES = sorted(Path(vpntun.__file__).parent.rglob("*.py"))


def test_the_clock_counts_the_time_of_suspends() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_time_awake_does_not_count_them() -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert before <= awake_time() <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_no_other_file_reads_a_clock_that_stands_still_during_a_suspend() -> None:
    assert [path.name for path in FILES if "monotonic" in path.read_text()] == ["clock.py"]
