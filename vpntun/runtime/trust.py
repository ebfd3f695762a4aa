"""Check that only trusted users can have written or replaced a file, before it is run or read.

The file, and every folder and symbolic link on the way to it, must belong to one of the trusted owners, and must not
be writable by its group or by others. There are two exceptions: the mode of a link is ignored, since it has no meaning,
and a sticky folder may be writable, since users cannot rename or remove each other's files in it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from vpntun.errors import ConfigurationError

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
MOST_LINKS = 40


def check_trusted(path: Path, owners: Collection[int]) -> None:
    """Raise ConfigurationError unless only the user IDs `owners` can have written the file at an absolute path."""
    try:
        for step in way_to(path):
            _check_step(step, owners)
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be examined: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"{path} is not a regular file")


def way_to(path: Path) -> Iterator[Path]:
    """Yield every folder and link on the way from the root to a file, then the file. Raises OSError."""
    here, links = Path("/"), 0
    ahead = list(path.parts[1:])
    yield here
    while ahead:
        name = ahead.pop(0)
        if name == "..":
            here = here.parent
            continue
        step = here / name
        yield step
        if not step.is_symlink():
            here = step
            continue
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        target = step.readlink()
        if target.is_absolute():
            here = Path("/")
        ahead = [*target.parts[target.is_absolute() :], *ahead]


def _check_step(step: Path, owners: Collection[int]) -> None:
    status = step.lstat()
    if status.st_uid not in owners:
        raise ConfigurationError(
            f"{step} belongs to another user (uid {status.st_uid}), who could replace what is run: chown root {step}"
        )
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX):
        return
    if status.st_mode & WRITABLE_BY_OTHERS:
        raise ConfigurationError(
            f"{step} can be written by others (mode {status.st_mode & 0o7777:04o}): chmod go-w {step}"
        )
