"""Files with keys: whether they can be read, and who else can read or replace them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from vpntun.config.keyfile import default_path, read_shared
from vpntun.doctor.finding import Finding, ok, parts_of, refused, skipped, warning
from vpntun.errors import ConfigurationError, KeyFileError, PrivilegeError
from vpntun.runtime.folders import absolute
from vpntun.runtime.trust import check_trusted


def examine_key(path: Path | None = None) -> Iterator[Finding]:
    """Examine a shared key file; None: the default one, which need not exist."""
    named, path = path is not None, path or default_path()
    if not named and not _exists(path):
        yield skipped(
            "key file", f"there is no {path}", "it is needed without other keys: the first 'vpntun -s' makes it"
        )
        return
    try:
        read_shared(path)
    except PrivilegeError as error:
        yield skipped("key file", *parts_of(error))
    except KeyFileError as error:
        yield refused("key file", error)
    else:
        yield ok("key file", f"{path} has a shared key, and is closed to others")
        yield from _trusted("key file", path)


def examine_file(path: Path) -> Iterator[Finding]:
    """Examine who can read or replace a configuration file, which contains keys and commands."""
    path = absolute(path)
    status = path.stat()
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            "file's mode",
            f"{path} contains keys and is open to others (mode {status.st_mode & 0o777:04o})",
            f"chmod 600 {path}",
        )
    else:
        yield ok("file's mode", f"{path} is closed to others")
    yield from _trusted("file's owner", path)


def _trusted(check: str, path: Path) -> Iterator[Finding]:
    """Yield what is wrong if another user can replace the file."""
    try:
        check_trusted(absolute(path), {0, os.geteuid()})
    except ConfigurationError as error:
        yield refused(check, error)


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except OSError:
        return True
