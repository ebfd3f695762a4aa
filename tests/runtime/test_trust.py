"""Trust in a file: only its owners can have written or replaced it, by whatever path it is reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.machine import NOBODY, needs_root
from vpntun.errors import ConfigurationError
from vpntun.runtime.trust import check_trusted, way_to

OWNERS = {0, os.geteuid()}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Script in a folder of this user, below the sticky /tmp."""
    path = tmp_path / "inner" / "script"
    path.parent.mkdir(mode=0o755)
    path.touch(mode=0o755)
    return path


def refused(path: Path, culprit: Path, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        check_trusted(path, OWNERS)
    assert str(caught.value).startswith(f"{culprit} ")


def test_a_file_of_ones_own_is_trusted(script: Path) -> None:
    check_trusted(script, OWNERS)


def test_the_systems_programs_are_trusted() -> None:
    check_trusted(Path("/bin/sh"), OWNERS)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_file_that_others_can_write_is_refused(script: Path, mode: int) -> None:
    script.chmod(mode)
    refused(script, script, "can be written by others")


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_folder_that_others_can_write_is_refused_anywhere_on_the_way(script: Path, mode: int) -> None:
    script.parent.parent.chmod(mode)
    refused(script, script.parent.parent, "can be written by others")


def test_a_sticky_folder_that_others_can_write_is_trusted(script: Path) -> None:
    script.parent.chmod(0o1777)
    check_trusted(script, OWNERS)


@needs_root
@pytest.mark.parametrize("part", ["file", "folder"])
def test_a_file_or_folder_of_another_user_is_refused(script: Path, part: str) -> None:
    culprit = script if part == "file" else script.parent
    os.chown(culprit, NOBODY, NOBODY)
    refused(script, culprit, "belongs to another user")
    check_trusted(script, {*OWNERS, NOBODY})


@needs_root
def test_a_link_of_another_user_is_refused(script: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(script)
    check_trusted(link, OWNERS)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    refused(link, link, "belongs to another user")


def test_a_link_in_the_middle_that_lies_in_an_open_folder_is_refused(script: Path, tmp_path: Path) -> None:
    middle = tmp_path / "middle"
    middle.mkdir()
    (middle / "link").symlink_to("../inner/script")
    (tmp_path / "link").symlink_to("middle/link")
    check_trusted(tmp_path / "link", OWNERS)
    middle.chmod(0o777)
    refused(tmp_path / "link", middle, "can be written by others")


def test_every_step_of_the_way_is_seen(script: Path, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "inner")
    steps = list(way_to(tmp_path / "a" / ".." / "a" / "script"))
    expected = [tmp_path, tmp_path / "a", script.parent.parent, script.parent, script]
    assert steps[0] == Path("/")
    assert set(expected) <= set(steps)
    assert steps[-1] == script


@pytest.mark.parametrize("name", ["none", "none/script", "loop", "inner", "inner/script/more"])
def test_a_path_that_is_not_a_file_is_a_configuration_error(script: Path, name: str) -> None:
    folder = script.parent.parent
    (folder / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError):
        check_trusted(folder / name, OWNERS)
