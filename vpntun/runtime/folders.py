"""Folders for this program's files: the machine's own for root, else the user's (XDG Base Directory Specification)."""

from __future__ import annotations

import os
from pathlib import Path

from vpntun.errors import ConfigurationError


def run_folder() -> Path:
    """Return the folder for state that ends with this boot."""
    return _folder("/run", "XDG_RUNTIME_DIR", ".cache")


def lasting_folder() -> Path:
    """Return the folder for state that outlasts a boot."""
    return _folder("/var/lib", "XDG_STATE_HOME", ".local/state")


def users_folder(variable: str, in_home: str) -> Path:
    """Return one of this user's own folders: the one that the variable names, else `in_home` below the home folder.

    Raises ConfigurationError where there is neither the variable nor a home.
    """
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return Path.home() / in_home
    except RuntimeError:
        raise ConfigurationError(
            f"user {os.geteuid()} has no account and so no home on this machine: set HOME, or {variable}, to a folder "
            "of its own"
        ) from None


def absolute(path: Path) -> Path:
    """Return the path as an absolute one. Raises ConfigurationError if it is relative to a folder that is gone."""
    try:
        return path.absolute()
    except OSError:
        raise ConfigurationError(
            f"{path} is relative to the current folder, which does not exist any more: give an absolute path"
        ) from None


def make_folder(path: Path) -> None:
    """Create a folder and those above it that are missing, with mode 0700 whatever the umask. Raises OSError."""
    if not path.parent.exists():
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def _folder(of_the_machine: str, variable: str, of_the_user: str) -> Path:
    if os.geteuid() == 0:
        return Path(of_the_machine) / "vpntun"
    return users_folder(variable, of_the_user) / "vpntun"
