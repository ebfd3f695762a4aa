"""Commands: each is found in its file by its name, and loaded alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Run
from tests.commands import LOADED
from vpntun.cli.commands import FILES

LIST_LOADED = "import sys; from vpntun.cli import main\ntry: main(['show', '--help'])\nfinally: print(*sys.modules)"


def test_each_command_is_in_its_file_under_its_own_name() -> None:
    assert {name: command.name for name, command in LOADED.items()} == {name: name for name in FILES}


def test_the_help_lists_all_of_them(run: Run) -> None:
    said = run("--help").out
    assert all(f"\n  {name} " in said for name in FILES), said


def test_a_command_does_not_load_the_code_of_the_others() -> None:
    done = subprocess.run([sys.executable, "-c", LIST_LOADED], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "vpntun.cli.control" in loaded
    assert [name for name in loaded if name.startswith(("vpntun.cli.doctor", "vpntun.doctor", "vpntun.daemon"))] == []


@pytest.mark.parametrize("name", ["", "shows", "up.py", "control"])
def test_any_other_name_is_a_usage_error(run: Run, name: str) -> None:
    assert run(name).status == 2
