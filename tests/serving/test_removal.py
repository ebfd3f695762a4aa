"""The watch of a socket's file calls back once, when the file has lost its name, and at nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.machine import HandLoop
from vpntun.serving.removal import RemovalWatch


@pytest.fixture
def calls(loop: HandLoop, path: Path) -> Iterator[list[str]]:
    """What the watch has called back."""
    made: list[str] = []
    watch = RemovalWatch(path, loop, lambda: made.append("removed"))
    yield made
    watch.close()


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.touch()
    other.rename(path)


@pytest.mark.parametrize("remove", [Path.unlink, lambda path: path.rename(path.with_name("moved")), replace])
def test_a_file_that_loses_its_name_is_noticed(
    loop: HandLoop, path: Path, calls: list[str], remove: Callable[[Path], object]
) -> None:
    remove(path)
    loop.until(lambda: calls)
    for left in path.parent.iterdir():
        left.chmod(0o600)
    loop.settle()
    assert calls == ["removed"]


def test_other_changes_are_ignored(loop: HandLoop, path: Path, calls: list[str]) -> None:
    path.chmod(0o660)
    os.link(path, path.with_name("second"))
    path.with_name("second").unlink()
    path.with_name("neighbour").touch()
    loop.settle()
    assert calls == []


def test_a_file_that_is_not_there_cannot_be_watched(loop: HandLoop, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RemovalWatch(tmp_path / "missing", loop, lambda: None)
