"""Which configuration files can be read, and who else should not be able to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.config.examples import INTERFACE, write
from tests.machine import logged, ordinary_user
from vpntun.config.file import LARGEST, read_file
from vpntun.config.tunnel import Tunnel
from vpntun.errors import ConfigurationError, PrivilegeError


def test_a_file_that_others_can_read_gets_a_warning(tmp_path: Path, read: Callable[..., Tunnel]) -> None:
    read(*INTERFACE)
    path = tmp_path / "wg7.conf"
    for folder_mode, mode, warned in ((0o755, 0o644, True), (0o700, 0o644, False), (0o755, 0o640, False)):
        tmp_path.chmod(folder_mode)
        path.chmod(mode)
        with logged() as lines:
            read_file(path, "wg7")
        assert lines == ([f"{path} contains keys and is open to everybody: chmod 600 {path}"] if warned else [])
    tmp_path.chmod(0o700)


def test_a_missing_file_a_folder_and_a_file_that_is_too_large_are_configuration_errors(tmp_path: Path) -> None:
    large = write(tmp_path / "large.conf", b"")
    os.truncate(large, LARGEST + 1)
    for path, said in ((tmp_path / "none.conf", "does not exist"), (tmp_path, "directory"), (large, "at most 32 MiB")):
        with pytest.raises(ConfigurationError, match=said):
            read_file(path, "wg7")


def test_a_file_with_zero_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a text file"):
        read_file(write(tmp_path / "wg7.conf", "\n".join(INTERFACE).encode("utf-16")), "wg7")


def test_a_file_that_this_user_may_not_read_is_a_privilege_error() -> None:
    with ordinary_user() as folder:
        write(folder / "wg7.conf", b"").chmod(0)
        with pytest.raises(PrivilegeError, match="as its owner, or as root"):
            read_file(folder / "wg7.conf", "wg7")
