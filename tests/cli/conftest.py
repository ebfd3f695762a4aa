"""Fixtures for all tests of the command line."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vpntun.daemon  # now, since a test as an ordinary user may not be able to read it
from vpntun.cli import main
from vpntun.config.keyfile import create_shared
from vpntun.control.server import socket_path


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    log = logging.getLogger("vpntun")
    former = log.handlers, log.level, log.propagate
    log.handlers = []
    yield
    log.handlers, log.propagate = former[0], former[2]
    log.setLevel(former[1])


class Said:
    """Exit status of a run of the program, and what it wrote."""

    def __init__(self, status: object, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err


class Run:
    """Runner of the program in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Said:
        with pytest.raises(SystemExit) as caught:
            main([str(each) for each in arguments])
        said = self._capsys.readouterr()
        return Said(caught.value.code or 0, said.out, said.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Arguments with which the daemon is run: the tunnel, its run options, and the function that reads it again."""
    given: list[Any] = []
    monkeypatch.setattr(vpntun.daemon, "run", lambda *arguments: given.extend(arguments))
    return given


def program(*arguments: str | Path, stdin: bytes = b"", environment: dict[str, str] | None = None) -> Said:
    """Run the program as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "vpntun", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, **(environment or {})},
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_shared(tmp_path / "key")
    return tmp_path / "key"


@contextlib.contextmanager
def full_queue(interface: str) -> Iterator[socket.socket]:
    """The control socket of a tunnel whose queue of connections has no room for one more."""
    path = socket_path(interface)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        yield listener
