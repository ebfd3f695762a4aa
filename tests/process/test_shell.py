"""Shell lines: the same meaning as in wg-quick, a time limit, and no trace of the line itself in the log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine import HandLoop, logged
from vpntun.errors import HookFailed
from vpntun.process.shell import ShellLines, When
from vpntun.runtime import child
from vpntun.runtime.loop import Loop

Run = Callable[[ShellLines], None]


@pytest.fixture(params=["waiting", "beside the loop", "before the loop"])
def run(request: pytest.FixtureRequest, loop: HandLoop) -> Iterator[Run]:
    """All ways to run lines, `run`, `start` and `serve`, which must do the same."""
    clocked = Loop()

    def beside(lines: ShellLines) -> None:
        ends: list[HookFailed | None] = []
        lines.start(loop, ends.append)
        end = time.monotonic() + 10
        while not ends:
            assert time.monotonic() < end
            loop.pass_time(0.02)
            time.sleep(0.005)
        [error] = ends
        if error is not None:
            raise error

    def before(lines: ShellLines) -> None:
        assert lines.serve(clocked)

    def waiting(lines: ShellLines) -> None:
        lines.run()

    yield {"waiting": waiting, "beside the loop": beside, "before the loop": before}[request.param]
    clocked.close()


def test_lines_run_in_order(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    run(ShellLines("PostUp", [f"sleep 0.05; echo one >> {out}", f"echo two >> {out}", f"echo three >> {out}"]))
    assert out.read_text() == "one\ntwo\nthree\n"


def test_without_lines_nothing_is_run(run: Run) -> None:
    with logged() as lines:
        run(ShellLines("PreUp", []))
    assert lines == []


def test_a_loop_is_served_while_lines_are_waited_for(tmp_path: Path, loop: HandLoop) -> None:
    answer = tmp_path / "answer"
    loop.stop()
    loop.call_later(0.0, answer.touch)
    ShellLines("PreDown", [f"until test -e {answer}; do sleep 0.02; done"]).run(loop)
    assert answer.exists()


@pytest.mark.parametrize("when", ["PreUp", "PostUp"])
def test_a_line_that_fails_ends_the_start(tmp_path: Path, run: Run, when: When) -> None:
    out = tmp_path / "out"
    with pytest.raises(HookFailed, match=f"line 2 of {when} failed with status 3") as failure:
        run(ShellLines(when, ["true", "exit 3 # a secret", f"touch {out}"]))
    assert not out.exists()
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize("when", ["PreDown", "PostDown"])
def test_on_the_way_down_a_failure_is_a_notice_and_the_next_lines_run(tmp_path: Path, run: Run, when: When) -> None:
    out = tmp_path / "out"
    with logged() as lines:
        run(ShellLines(when, ["exit 3 # a secret", "kill -9 $$", f"touch {out}"]))
    assert out.exists()
    assert f"line 1 of {when} failed with status 3" in lines
    assert f"line 2 of {when} was ended by signal 9" in lines
    assert "secret" not in "".join(lines)


def test_a_line_that_takes_too_long_is_killed_with_its_child_processes(tmp_path: Path, run: Run) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(HookFailed, match="was killed"):
        run(ShellLines("PostUp", [f"sleep 60 & echo $! > {pid}; wait"], seconds=1))
    gone = Path(f"/proc/{pid.read_text().strip()}")
    end = time.monotonic() + 5
    while gone.exists() and b"\0" in (gone / "cmdline").read_bytes():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_processes_that_a_line_leaves_behind_are_not_waited_for(run: Run) -> None:
    before = time.monotonic()
    run(ShellLines("PostUp", ["sleep 3 > /dev/null 2>&1 &"]))
    assert time.monotonic() - before < 2


def test_the_first_command_that_fails_ends_the_line(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "out"
    for line in (f"false; touch {out}", f"false | true; touch {out}"):
        with pytest.raises(HookFailed):
            run(ShellLines("PreUp", [line]))
    assert not out.exists()


def test_bash_runs_the_lines_if_it_exists(tmp_path: Path, run: Run) -> None:
    run(ShellLines("PreUp", [f"[[ vpn == @(vpn|tun) ]]; cat <(echo bash) > {tmp_path}/out"]))
    assert (tmp_path / "out").read_text() == "bash\n"


def test_without_bash_sh_runs_the_lines(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(child, "SYSTEM_PATH", "")
    run(ShellLines("PreUp", [f"echo $BASH_VERSION > {tmp_path}/out"]))
    assert (tmp_path / "out").read_text() == "\n"


def test_a_line_gets_no_secret_no_descriptor_and_no_input(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "value")
    held = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(held, True)
    run(ShellLines("PreUp", [f"echo $SECRET $(ls /proc/$$/fd | wc -w) $(wc -c) $HOME > {tmp_path}/out"]))
    os.close(held)
    descriptors, read, home = (tmp_path / "out").read_text().split()
    assert (int(read), home) == (0, os.environ["HOME"])
    assert int(descriptors) <= 5


def test_the_systems_own_programs_are_found(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    run(ShellLines("PreUp", ["ls / > /dev/null"]))
    monkeypatch.delenv("PATH")
    run(ShellLines("PreUp", ["ls / > /dev/null"]))


def test_the_output_of_a_line_is_logged(run: Run) -> None:
    with logged() as lines:
        run(ShellLines("PostUp", ["echo one; echo two >&2"]))
    assert [line for line in lines if line.startswith("PostUp: ")] == ["PostUp: one", "PostUp: two"]


def test_a_line_that_cannot_be_run_at_all_is_an_error(run: Run) -> None:
    with pytest.raises(HookFailed, match="cannot be run"):
        run(ShellLines("PreUp", ["echo \0"]))


def test_a_loop_that_is_stopped_ends_the_line_that_is_running(tmp_path: Path) -> None:
    loop, out = Loop(), tmp_path / "out"
    loop.call_later(0.1, loop.stop)
    assert not ShellLines("PreUp", [f"sleep 0.3; echo one >> {out}", f"echo two >> {out}"]).serve(loop)
    loop.close()
    assert out.read_text() == "one\n"
