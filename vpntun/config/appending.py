"""Append a section to a configuration file as a whole, and take it back if what follows fails.

1. `locked` lets one process at a time change a file. The lock is on the file itself, which only those who may read it
   can lock, in contrast to its folder; it vanishes with the process.
2. `appended` writes the longer content to a temporary file in the same folder, with the owner, mode and extended
   attributes of the file; these include access control lists. It waits until the disk has it, and renames it over the
   file. So nobody ever reads half of a section, and everything before it stays, byte for byte. The new file is locked
   before it gets the name, and until the `with` statement ends.
3. If the body of the `with` statement raises an error, the former content is put back in the same way, unless somebody
   else has changed the file meanwhile.

A symbolic link stays one: the file that it leads to is replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, PrivilegeError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process changes the file, and keep others waiting meanwhile.

    Raises ConfigurationError or PrivilegeError.
    """
    with _explained(path):
        lock = _lock(path.resolve())
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def appended(path: Path, section: str) -> Iterator[None]:
    """Append a section, and an empty line before it; take it back if the body of the `with` statement fails.

    Raises ConfigurationError or PrivilegeError if the file cannot be changed, and then it has not been changed.
    """
    target = path.resolve()
    with _explained(path):
        former = target.read_bytes()
        longer = former + _gap_behind(former) + section.encode()
        lock = _replace(target, longer)
    try:
        yield
    except BaseException:
        with _explained(path):
            if target.read_bytes() == longer:
                os.close(_replace(target, former))
        raise
    finally:
        os.close(lock)


def _lock(path: Path) -> int:
    """Lock a file, and return the descriptor that holds the lock. Raises OSError."""
    while True:
        lock = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # the file was replaced meanwhile


def _gap_behind(content: bytes) -> bytes:
    """Return what ends the last line and makes an empty one."""
    if not content or content.endswith(b"\n\n"):
        return b""
    return b"\n" if content.endswith(b"\n") else b"\n\n"


def _replace(path: Path, content: bytes) -> int:
    """Replace the content of a file and keep its owner, mode and attributes; return a lock on it, as `_lock` does.

    Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(fresh, flags, 0o600), "wb") as file:
            _liken(file.fileno(), path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            fresh.replace(path)
            return os.dup(file.fileno())
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


def _liken(descriptor: int, path: Path) -> None:
    """Give a new file the owner, mode and extended attributes of the one at `path`. Raises OSError."""
    model, fresh = path.stat(), os.fstat(descriptor)
    if (model.st_uid, model.st_gid) != (fresh.st_uid, fresh.st_gid):
        os.fchown(descriptor, model.st_uid, model.st_gid)
    os.fchmod(descriptor, model.st_mode & 0o7777)
    for name in _attributes(path):
        os.setxattr(descriptor, name, os.getxattr(path, name))


def _attributes(path: Path) -> list[str]:
    """List the extended attributes, except those that the kernel's security modules give to each new file."""
    try:
        return [name for name in os.listxattr(path) if not name.startswith("security.")]
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn an OSError into the program's own error."""
    try:
        yield
    except PermissionError:
        raise PrivilegeError(f"{path} cannot be changed by this user: run as its owner, or as root") from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{path} cannot be changed: {reason}") from None
