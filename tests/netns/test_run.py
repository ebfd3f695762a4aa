"""`vpntun run`: what a program in a namespace of its own has, and how it, its parent and its tunnel end."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from tests.netns.lab import NOBODY, Daemon, Lab, far, start_server, until
from tests.netns.leftovers import processes
from tests.netns.users import User, said_by

RUN = (sys.executable, "-m", "vpntun", "run")
ABOUT = """
import json, os, socket, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "ids": [os.getresuid(), os.getresgid(), len(os.getgroups())],
    "capabilities": [status["CapEff"], status["CapPrm"], status["CapInh"], status["CapAmb"]],
    "blocked": status["SigBlk"],
    "ignored": int(status["SigIgn"], 16) & 0x7fffffff,
    "folder": os.getcwd(), "variable": os.environ["VARIABLE"], "input": sys.stdin.read(),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "devices": [name for _, name in socket.if_nameindex()],
    "arguments": sys.argv[1:],
    "sees the keys": os.access(f"/proc/{os.getppid()}/mem", os.R_OK),
}))
"""
"""Program that tells what it was given."""
NOTHING = "0" * 16
IGNORED_BY_PYTHON = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
PINGING = "trap '' TERM; while sleep 0.2; do ping -n -c1 -W1 {far} 2>&1; ip -br link; echo ----; done"
TRAPPING = """
for each in INT HUP USR1 USR2; do trap "echo got-$each" $each; done
trap 'echo got-TERM; trap "echo ended; exit 3" TERM' TERM
echo began; while :; do sleep 0.1; done
"""


def running(process: int) -> bool:
    """Whether a process exists, and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def holder_of(run: Daemon) -> int:
    """The process of a run that holds the namespace: the only one with a session of its own."""
    return next(each for each in children(run.process.pid) if os.getsid(each) == each)


def processes_of(lab: Lab) -> set[int]:
    return processes(lambda name: name == lab.a.name)


def arguments(lab: Lab, user: User | None = None) -> tuple[str | Path, ...]:
    return ("-c", lab.b.four, "-k", lab.key if user is None else user.own(lab.key))


def test_an_ordinary_users_program_has_what_its_caller_gave_it_and_nothing_more(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    by = arguments(lab, user)
    before = processes_of(lab)
    done = lab.a.run(
        *(*RUN, *by, "--", sys.executable, "-c", ABOUT, "--", "-x"),
        env={**user.env, "VARIABLE": "hä"},
        user=str(NOBODY),
        input="from stdin",
    )
    assert said_by(done) == ""
    assert json.loads(done.stdout) == {
        "ids": [[NOBODY] * 3, [NOBODY] * 3, 0],
        "capabilities": [NOTHING] * 4,
        "blocked": NOTHING,
        "ignored": IGNORED_BY_PYTHON,
        "folder": os.getcwd(),
        "variable": "hä",
        "input": "from stdin",
        "descriptors": [0, 1, 2],
        "devices": ["lo", "run0"],
        "arguments": ["--", "-x"],
        "sees the keys": False,
    }
    for command, status, said in (
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL, ""),
        (("no-such-program",), 127, "vpntun: no-such-program: there is no such command\n"),
    ):
        done = user.run(*RUN, *by, "--", *command, check=False)
        assert (done.returncode, said_by(done)) == (status, said)
    done = user.run(*RUN, *by, "--wait", "0.5", "-p", "5", "--", "touch", user.home / "made", check=False)
    assert (done.returncode, done.stderr) == (9, "vpntun: no link within 0.5 s: touch was not started (-v says more)\n")
    assert not (user.home / "made").exists()
    assert until(lambda: processes_of(lab) == before, 60)
    assert list(user.run_folder.glob("*/*")) == []


def test_a_killed_parent_leaves_a_program_without_any_way_out(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    run = user.vpntun("run", *arguments(lab, user), "--", "sh", "-c", PINGING.format(far=far(lab)))
    run.wait_for("1 received", 60)
    holder = holder_of(run)
    (program,) = set(children(run.process.pid)) - {holder}
    assert {holder, program} < processes_of(lab)
    run.kill()
    assert until(lambda: not running(holder), 30)

    def last_try() -> str:
        return run.log.rpartition("----")[0].rpartition("----")[2]

    assert until(lambda: "unreachable" in last_try(), 30), run.log
    assert "run0" not in last_try()
    os.kill(program, signal.SIGKILL)


def test_signals_from_other_processes_are_passed_on_and_a_program_ends_with_its_tunnel(lab: Lab) -> None:
    start_server(lab)
    user = User(lab.a)
    by = arguments(lab, user)
    names = ("INT", "TERM", "HUP", "USR1", "USR2")
    run = user.vpntun("run", *by, "--", "sh", "-c", TRAPPING)
    run.wait_for("began", 60)
    for name in names:
        run.process.send_signal(signal.Signals[f"SIG{name}"])
        run.wait_for(f"got-{name}", 60)
    status, said = user.ask("run", *by, "--", "true")
    assert (status, "another vpntun runs run0 already" in said) == (8, True)
    os.kill(holder_of(run), signal.SIGKILL)
    run.wait_for("the process that holds the namespace has ended", 60)
    assert user.ask("down", "run0")[0] == 0
    assert run.wait(60) == 3
    assert [run.log.count(f"got-{name}") for name in names] == [1] * len(names)
