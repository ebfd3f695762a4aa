"""The one clock of the program, which counts suspends, and the pauses that it shows."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

import vpntun
from tests.machine import Clock, HandLoop
from vpntun.runtime.clock import ClockWatch, Pause, PauseDetector, awake_time, boottime

FILES = sorted(Path(vpntun.__file__).parent.rglob("*.py"))


def test_the_clock_counts_the_time_of_suspends() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_the_time_awake_does_not_count_them() -> None:
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    assert before <= awake_time() <= time.clock_gettime(time.CLOCK_MONOTONIC)


def test_no_other_file_reads_a_clock_that_stands_still_during_a_suspend() -> None:
    assert [path.name for path in FILES if "monotonic" in path.read_text()] == ["clock.py"]


class Machine:
    """The three clocks of a machine, and a process on it that looks for pauses."""

    def __init__(self) -> None:
        self.clock, self.awake, self.wall = Clock(), Clock(), Clock()
        self._detector = PauseDetector(self.clock, self.awake, self.wall)

    def passes(self, seconds: float, *, asleep: bool = False, paused: bool = False) -> None:
        """Let time pass: as usual, while the machine is suspended, or while a hypervisor has paused it."""
        self.clock.now += 0 if paused else seconds
        self.awake.now += 0 if paused or asleep else seconds
        self.wall.now += 0 if paused else seconds

    def look(self, late: float = 0.0, *, continued: bool = False) -> Pause | None:
        return self._detector.look(self.clock() - late, continued=continued)


def test_a_suspend_is_noticed_once_with_its_length() -> None:
    machine = Machine()
    machine.passes(7)
    machine.passes(200, asleep=True)
    assert machine.look() == Pause("suspended", 200)
    assert machine.look() is None


def test_time_that_passes_while_nothing_is_due_is_no_pause() -> None:
    machine = Machine()
    machine.passes(1000)
    assert machine.look() is None
    assert machine.look(late=-2600) is None


def test_a_process_that_wakes_long_after_its_deadline_was_stopped() -> None:
    machine = Machine()
    machine.passes(100)
    assert machine.look(late=60) == Pause("stopped", 60)


def test_sigcont_ends_a_stop_of_unknown_length() -> None:
    machine = Machine()
    machine.passes(100)
    assert machine.look(late=-900, continued=True) == Pause("stopped")


def test_a_wall_clock_that_is_set_forward_may_end_a_pause_of_the_virtual_machine() -> None:
    machine = Machine()
    machine.passes(300, paused=True)
    assert machine.look() is None
    machine.wall.now += 300
    assert machine.look() == Pause("clock set", 300)
    machine.wall.now -= 10_000
    assert machine.look() is None


@pytest.mark.parametrize("seconds", [0.5, 4.9])
def test_short_pauses_are_ordinary(seconds: float) -> None:
    machine = Machine()
    machine.passes(seconds, asleep=True)
    machine.wall.now += seconds
    assert machine.look(late=seconds) is None


@pytest.mark.parametrize(
    ("pause", "text"),
    [
        (Pause("suspended", 3600.4), "this machine was suspended for 3600 s"),
        (Pause("stopped", 12.0), "this process did not run for 12 s"),
        (Pause("stopped"), "this process was stopped"),
        (Pause("clock set", 7.0), "the clock was set forward by 7 s"),
    ],
)
def test_each_kind_has_a_sentence(pause: Pause, text: str) -> None:
    assert str(pause) == text


def test_the_watch_of_the_clocks_is_quiet_while_nobody_sets_them() -> None:
    watch = ClockWatch()
    watch.rearm()
    assert select.select([watch.fileno()], [], [], 0.05)[0] == []
    watch.close()


def test_a_watch_that_is_refused_leaves_no_descriptor_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpntun.runtime.clock._FAR", -1)  # no time that a timer takes
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Invalid argument"):
        ClockWatch()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_loop_calls_back_after_a_suspend_before_it_reads_anything(loop: HandLoop) -> None:
    order: list[str] = []
    reader, writer = os.pipe()
    loop.watch(reader, lambda: order.append(os.read(reader, 9).decode()))
    loop.call_after_pauses(lambda pause: order.append(str(pause)))
    os.write(writer, b"read")
    loop.suspend(200)
    loop.pass_time(200)
    assert order == ["this machine was suspended for 200 s", "read"]
    loop.forget(reader)
    os.close(reader)
    os.close(writer)


def test_the_loop_calls_back_after_sigcont_if_it_has_not_turned_for_long(loop: HandLoop) -> None:
    heard: list[Pause] = []
    loop.call_after_pauses(heard.append)
    with loop.ending_on_signals():
        os.kill(os.getpid(), signal.SIGCONT)
        loop.poll()
        assert heard == []
        loop.pass_time(60)
        assert heard == []
        os.kill(os.getpid(), signal.SIGCONT)
        loop.pass_time(60)
    assert heard == [Pause("stopped")]


def test_a_loop_that_is_ending_is_past_caring(loop: HandLoop) -> None:
    """systemd sends SIGCONT right after SIGTERM."""
    heard: list[Pause] = []
    loop.call_after_pauses(heard.append)
    with loop.ending_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGCONT)
        loop.pass_time(60)
    assert heard == []
