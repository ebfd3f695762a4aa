"""Process 1: it collects the orphans of its hooks, leaves the status of each command alone, and ends at signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.machine import needs_root

ADOPT = """
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
"""
PROGRAM = """
import json, os, sys
from vpntun.runtime.child import Child, run_and_wait
from vpntun.runtime.loop import Loop

def children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()

def look(times=100):
    left = children()
    if not left or not times:
        print(json.dumps({"ends": ends, "waited": waited, "left": left, "turns": loop.turns}))
        loop.stop()
    else:
        loop.call_later(0.1, lambda: look(times - 1))

script, count = sys.argv[1], int(sys.argv[2])
loop, ends = Loop(), []
def ended(problem):
    ends.append(problem)
    if len(ends) == count:
        look()

with loop.ending_on_signals():
    waited = [run_and_wait("test", ["/bin/sh", "-c", script], {}) for _ in range(3)]
    for _ in range(count):
        Child("test", ["/bin/sh", "-c", script], {}, loop, ended)
    loop.run(lambda _: float("inf"), lambda _: None)
"""


def run(before: str, script: str, count: int) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, script, str(count)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("script", ["(exit 4) & (sleep 0.2; exit 3) & exit 7", "true & sleep 0.2; exit 7"])
def test_orphans_are_collected_and_each_command_keeps_its_status(script: str) -> None:
    found = run(ADOPT, script, 5)
    assert found["ends"] == ["failed with status 7"] * 5
    assert found["waited"] == ["failed with status 7"] * 3
    assert found["left"] == []


def test_many_orphans_at_once_are_collected_without_a_tick() -> None:
    found = run(ADOPT, "for number in $(seq 100); do (sleep 0.2) & done", 2)
    assert found["ends"] == [None, None]
    assert found["left"] == []
    assert int(str(found["turns"])) < 900


ENDED_BEFORE = """
import os
from vpntun.runtime.loop import Loop
loop = Loop()
with loop.ending_on_signals():
    loop.call_later(0.0, loop.stop)
    loop.run(lambda _: float("inf"), lambda _: None)
print(open(f"/proc/self/task/{os.getpid()}/children").read())
"""


def test_children_that_a_shell_left_before_it_became_the_program_are_collected() -> None:
    line = '(exit 2) & sleep 0.2; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-c", ENDED_BEFORE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


NAMESPACE = "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"
WAIT_FOR_A_SIGNAL = """
import os, signal, sys
from vpntun.runtime.process_one import ending_action
signal.signal(signal.SIGTERM, ending_action())
print(os.getpid(), flush=True)
signal.pause()
"""


@needs_root
def test_process_1_ends_at_a_signal_with_the_status_that_a_shell_reports() -> None:
    with subprocess.Popen([*NAMESPACE, sys.executable, "-c", WAIT_FOR_A_SIGNAL], stdout=-1, text=True) as namespace:
        assert namespace.stdout is not None
        assert namespace.stdout.readline() == "1\n"
        [inner] = Path(f"/proc/{namespace.pid}/task/{namespace.pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGTERM)
        assert namespace.wait(10) == 128 + signal.SIGTERM


A_THREAD_IS_FASTER = """
import os, subprocess
from vpntun.runtime.process_one import collect_orphans
child, look = subprocess.Popen(["true"]), os.waitid

def seen_and_then_collected(*arguments):
    ended = look(*arguments)
    child.wait()
    return ended

os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
os.waitid = seen_and_then_collected
collect_orphans()
print(child.returncode)
"""


def test_a_child_that_a_thread_waits_for_meanwhile_is_no_error() -> None:
    done = subprocess.run([sys.executable, "-c", A_THREAD_IS_FASTER], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
