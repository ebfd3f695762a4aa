"""A program of `vpntun run` at a terminal: keys reach it once, and it can be suspended and continued as any other."""

from __future__ import annotations

import sys

from tests.netns.lab import NOBODY, Lab, start_server
from tests.netns.users import User
from tests.terminal import CTRL_C, CTRL_Z, Terminal

COUNTER = """
import signal, sys
came = 0
def note(*_):
    global came
    came += 1
    print("interrupted", came, flush=True)
signal.signal(signal.SIGINT, note)
signal.signal(signal.SIGCONT, lambda *_: print("continued", flush=True))
print("program", "began", flush=True)
for line in sys.stdin:
    print("read", line.strip(), flush=True)
    if line.strip() == "end":
        sys.exit(9)
"""


def prompt(terminal: Terminal) -> None:
    """Wait until the shell has nothing to do."""
    terminal.until(lambda: terminal.text.rstrip().endswith("shell>"), "for a prompt", 60)


def test_keys_of_a_terminal_reach_the_program_once_and_jobs_can_be_controlled(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    (user.home / "counter.py").write_text(COUNTER)
    run = f"{sys.executable} -m vpntun run -k {user.own(lab.key)}"
    shell = lab.a.enter(["bash", "--norc", "-i"], user=str(NOBODY))
    with Terminal(shell, env={**user.env, "PS1": "shell> "}, columns=150) as terminal:
        terminal.wait_for("shell>")
        terminal.type(f"{run} -c {lab.b.four} -- {sys.executable} {user.home}/counter.py\n")
        terminal.wait_for("program began", 60)
        terminal.type(CTRL_C)
        terminal.wait_for("interrupted 1", 60)
        terminal.type("one\n")
        terminal.wait_for("read one", 60)
        terminal.type(CTRL_Z)
        terminal.wait_for("Stopped", 60)
        terminal.type("fg\n")
        terminal.wait_for("continued", 60)
        terminal.type("two\n")
        terminal.wait_for("read two", 60)
        terminal.type(CTRL_C)
        terminal.wait_for("interrupted 2", 60)
        terminal.type("end\n")
        prompt(terminal)
        terminal.type("echo status $?\n")
        terminal.wait_for("status 9", 60)
        assert "interrupted 3" not in terminal.text
        terminal.type(f"clear; {run} -c {lab.b.four} -p 5 -- echo program began\n")
        terminal.wait_for("no link yet", 60)
        terminal.type(CTRL_C)
        prompt(terminal)
        terminal.type("echo status $?\n")
        terminal.wait_for("status 130", 60)
        # A shell inside has a group of its own, and its jobs are its own.
        terminal.type(f"{run} -c {lab.b.four} -- bash --norc -i; echo status $?\n")
        terminal.type("sh -c 'echo job $((40 + 2)); exec sleep 1000'\n")
        terminal.wait_for("job 42", 60)
        terminal.type(CTRL_Z)
        terminal.wait_for("Stopped                 sh -c", 60)
        terminal.type("kill -KILL %1; exec sh -c 'exit 5'\n")
        terminal.wait_for("status 5", 60)
