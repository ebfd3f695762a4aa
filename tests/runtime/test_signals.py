"""Signals of a service: which end it, which call back, and which only wake it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

import pytest

from vpntun.runtime.loop import Loop

PROGRAM = """
import os, signal, sys, time
from vpntun.runtime.loop import Loop
loop = Loop()
def say(text):
    os.write(1, text.encode() + b"\\n")
loop.call_later(0.0, lambda: say("running"))
on_hangup = (lambda: say("told")) if "told" in sys.argv else None
if "ticking" in sys.argv:
    def tick():
        say("tick")
        loop.call_later(0.05, tick)
    loop.call_later(0.05, tick)
with loop.ending_on_signals(on_hangup):
    if "early" in sys.argv:
        say("running")
        time.sleep(1)
    loop.run(lambda _: float("inf"), lambda _: None)
    say("ended")
    if "linger" in sys.argv:
        time.sleep(30)
"""
NEVER = float("inf")
IGNORING_HANGUPS = "sh", "-c", "trap '' HUP; exec \"$@\"", "sh"
"""Command line that starts a program as nohup(1) does."""


def start(*arguments: str, before: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    program = subprocess.Popen([*before, sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"running\n"
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_ends_the_loop_cleanly(number: signal.Signals) -> None:
    with start() as program:
        program.send_signal(number)
        output, _ = program.communicate(timeout=10)
        assert output == b"ended\n"
        assert program.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_set_up_ends_the_loop_as_soon_as_it_begins(number: signal.Signals) -> None:
    with start("early") as program:
        program.send_signal(number)
        output, _ = program.communicate(timeout=10)
        assert output == b"ended\n"
        assert program.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_kills_the_process_at_once(number: signal.Signals) -> None:
    with start("linger") as program:
        assert program.stdout is not None
        program.send_signal(number)
        assert program.stdout.readline() == b"ended\n"
        program.send_signal(number)
        program.wait(timeout=10)
        assert program.returncode == -number


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGHUP])
def test_hangups_during_the_shutdown_neither_kill_nor_count_as_a_first_signal(first: signal.Signals) -> None:
    """A closed terminal causes several SIGHUPs, and systemd sends one right after SIGTERM at a logout."""
    with start("linger") as program:
        assert program.stdout is not None
        program.send_signal(first)
        assert program.stdout.readline() == b"ended\n"
        for _ in range(2):
            program.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(timeout=0.3)
        program.send_signal(signal.SIGTERM)
        if first == signal.SIGHUP:
            with pytest.raises(subprocess.TimeoutExpired):
                program.wait(timeout=0.3)
            program.send_signal(signal.SIGTERM)
        assert program.wait(timeout=10) == -signal.SIGTERM


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored() -> None:
    with start("ticking", before=IGNORING_HANGUPS) as program:
        assert program.stdout is not None
        program.send_signal(signal.SIGHUP)
        for _ in range(5):
            assert program.stdout.readline() == b"tick\n"
        assert is_ignored(program, signal.SIGHUP)
        program.terminate()
        assert program.wait(timeout=10) == 0


def test_a_hangup_with_a_callback_is_handled_even_if_it_was_ignored_at_the_start() -> None:
    with start("told", before=IGNORING_HANGUPS) as program:
        assert program.stdout is not None
        program.send_signal(signal.SIGHUP)
        assert program.stdout.readline() == b"told\n"
        program.terminate()
        assert program.wait(timeout=10) == 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_users_signal_changes_nothing_and_is_not_ignored_by_child_processes(number: signal.Signals) -> None:
    with start("ticking") as program:
        assert program.stdout is not None
        for _ in range(100):
            program.send_signal(number)
        for _ in range(5):
            assert program.stdout.readline() == b"tick\n"
        assert not is_ignored(program, number)
        program.terminate()
        assert program.communicate(timeout=10)[0].endswith(b"ended\n")
        assert program.returncode == 0


def is_ignored(program: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether the program ignores a signal, and a child process would, too; a handler would not be inherited."""
    (mask,) = re.findall(r"^SigIgn:\s*(\w+)$", Path(f"/proc/{program.pid}/status").read_text(), re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_a_signal_wakes_a_loop_that_sleeps_for_an_hour() -> None:
    loop = Loop()
    read, write = os.pipe()
    loop.call_later(0.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    started = monotonic()
    with loop.ending_on_signals():
        loop.run(lambda _: NEVER, lambda _: None)
    loop.close()
    os.close(read)
    os.close(write)
    assert monotonic() - started < 5


def test_a_hangup_calls_back_from_the_loop_and_ends_nothing() -> None:
    loop = Loop()
    told: list[str] = []

    def hang_up() -> None:
        told.append("again")
        (loop.stop if len(told) > 1 else send)()

    def send() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        told.append("sent")  # the callback that is running finishes first

    loop.call_later(0.0, lambda: os.kill(os.getpid(), signal.SIGHUP))
    with loop.ending_on_signals(hang_up):
        loop.run(lambda _: NEVER, lambda _: None)
    loop.close()
    assert told == ["again", "sent", "again"]
