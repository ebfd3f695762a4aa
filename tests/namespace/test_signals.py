"""Signals of a run that come from other processes; tests/netns/test_run_terminal.py has those of a terminal.

They are sent to the thread that blocks them. The workers of the tests have more threads, which a signal to the process
would reach, and end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.machine import HandLoop
from vpntun.namespace.signals import PASSED_ON, RunSignals

SENDER = "import ctypes, sys; input(); ctypes.CDLL(None).tgkill(*map(int, sys.argv[1:]))"


def send(number: int) -> None:
    signal.pthread_kill(threading.get_ident(), number)


class Program:
    """A program that notes its signals."""

    def __init__(self) -> None:
        self.process = 0
        self.is_started = True
        self.came: list[int] = []

    def signal(self, number: int) -> None:
        self.came.append(number)

    def has_stopped(self) -> bool:
        return False


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def signals(loop: HandLoop, program: Program) -> Iterator[RunSignals]:
    with RunSignals(loop, program) as handled:
        yield handled


@pytest.mark.usefixtures("signals")
def test_signals_of_other_processes_are_passed_on(loop: HandLoop, program: Program) -> None:
    for number in sorted(PASSED_ON):
        send(number)
        loop.until(lambda: program.came)
        assert program.came == [number]
        program.came.clear()
    assert loop.running


def test_before_the_program_has_begun_they_end_the_run(loop: HandLoop, program: Program, signals: RunSignals) -> None:
    program.is_started = False
    send(signal.SIGUSR1)
    send(signal.SIGWINCH)
    loop.settle()
    assert (loop.running, signals.ended_by) == (True, None)
    send(signal.SIGTERM)
    loop.until(lambda: not loop.running)
    assert (program.came, signals.ended_by) == ([], signal.SIGTERM)


@pytest.mark.usefixtures("signals")
def test_a_signal_of_the_program_itself_is_not_passed_back(loop: HandLoop, program: Program) -> None:
    thread = (str(os.getpid()), str(threading.get_native_id()), str(int(signal.SIGTERM)))
    with subprocess.Popen([sys.executable, "-c", SENDER, *thread], stdin=subprocess.PIPE) as sender:
        program.process = sender.pid
        sender.communicate(b"go\n")
    loop.settle()
    assert program.came == []
    send(signal.SIGTERM)
    loop.until(lambda: program.came == [signal.SIGTERM])


def test_a_signal_that_was_ignored_before_stays_so(loop: HandLoop, program: Program) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with RunSignals(loop, program):
        send(signal.SIGHUP)
        loop.settle()
    assert program.came == []


def test_a_line_of_the_log_does_not_stop_the_run_while_a_shell_inside_has_the_terminal(
    loop: HandLoop, program: Program
) -> None:
    former = signal.getsignal(signal.SIGTTOU)
    with RunSignals(loop, program):
        assert signal.getsignal(signal.SIGTTOU) == signal.SIG_IGN
        send(signal.SIGTTOU)
        loop.settle()
    assert signal.getsignal(signal.SIGTTOU) == former


def test_afterwards_no_signal_is_blocked_and_none_is_left(loop: HandLoop, program: Program) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with RunSignals(loop, program):
        send(signal.SIGTERM)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
