"""The command `signal`: one number on stdout, and a status that tells a script whether the daemon runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.process.test_holder import HOLD


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vpntun.pid"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started
        started.kill()


def test_without_a_signal_the_process_is_printed_and_left_alone(
    run: Run, path: Path, holder: subprocess.Popen[str]
) -> None:
    said = run("signal", path)
    assert (said.status, said.out, said.err) == (0, f"{holder.pid}\n", "")
    assert holder.poll() is None


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_signal_that_ends_the_daemon_is_waited_for(
    run: Run, path: Path, holder: subprocess.Popen[str], name: str
) -> None:
    said = run("signal", path, name)
    assert (said.status, said.out) == (0, f"{holder.pid}\n")
    assert holder.wait(0) < 0


def test_a_hangup_is_sent_and_not_waited_for(run: Run, path: Path, holder: subprocess.Popen[str]) -> None:
    assert run("signal", path, "HUP").status == 0
    assert holder.stdout is not None
    assert holder.stdout.readline() == "hangup\n"


@pytest.mark.parametrize("arguments", [[], ["TERM"], ["HUP"], ["KILL"]])
def test_without_a_daemon_the_status_is_11(run: Run, path: Path, arguments: list[str]) -> None:
    path.write_text("1\n")
    said = run("signal", path, *arguments)
    assert (said.status, said.out, said.err) == (11, "", f"vpntun: no vpntun holds {path}\n")


def test_another_signal_is_a_usage_error(run: Run, path: Path) -> None:
    assert run("signal", path, "STOP").status == 2
