"""A signal undoes what was begun, and ends the process as a shell expects it."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from vpntun.pairing.interrupts import Interrupted, ended_by_signals

PROGRAM = """
import os, signal
from vpntun.pairing.interrupts import ended_by_signals
with ended_by_signals():
    try:
        os.kill(os.getpid(), {number})
        signal.pause()
    finally:
        print("undone", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_was_begun_is_undone_and_the_process_dies_of_the_signal(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM.format(number=int(number))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "undone\n", "")


def test_a_second_signal_does_not_disturb_what_undoes_the_first() -> None:
    program = PROGRAM.format(number=int(signal.SIGHUP)).replace(
        "    finally:", "    finally:\n        os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGHUP)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGHUP, "undone\n", "")


def test_an_ignored_signal_stays_ignored_and_handlers_are_as_before_afterwards() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGINT)
    with ended_by_signals():
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
