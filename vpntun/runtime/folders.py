"""Folders for this program's files: the machine's own for root, else the user's (XDG Base Directory Specification).

Several network namespaces may share a folder, and have interfaces of the same name. The names of their files then
contain the namespace's cookie. The kernel uses none twice until the machine reboots, in contrast to the inode number
that lsns(8) shows, so a file that was left behind never passes for that of a later namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from vpntun.errors import ConfigurationError

SO_NETNS_COOKIE = 71
OWN_NAMESPACE = Path("/proc/self/ns/net")

_cookie = struct.Struct("=Q")


def run_folder() -> Path:
    """Return the folder for state that ends with this boot."""
    return _folder("/run", "XDG_RUNTIME_DIR", ".cache")


def lasting_folder() -> Path:
    """Return the folder for state that outlasts a boot."""
    return _folder("/var/lib", "XDG_STATE_HOME", ".local/state")


def own_namespace() -> int:
    """Return the cookie of this process's network namespace; before Linux 5.14, its inode number."""
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            return int(_cookie.unpack(asked.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, _cookie.size))[0])
        except OSError:
            return OWN_NAMESPACE.stat().st_ino


def named_here(interface: str) -> str:
    """Return the name of an interface of this namespace among those of all. No interface's name contains a colon."""
    return f"{interface}:{own_namespace()}"


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
