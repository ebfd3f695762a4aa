"""Pid file: one line with the daemon's process id, locked while the daemon lives.

The lock tells whether the daemon lives. The number does not, since another process may have it by now. So a locked file
is refused, and any other was left behind and is replaced. A new file appears under its name complete and locked. No
other program's file is overwritten: an existing file is replaced only while this process holds its lock, and only if it
is a regular file that contains nothing but a number.

The daemon holds two locks. That of flock(2) excludes a second daemon. That of fcntl(2) names its holder: F_GETLK
returns the process id as the asking process's namespace counts it, or 0 if the holder is in another namespace
(locks_translate_pid, fs/locks.c). holder.py finds the daemon by it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, InterfaceInUse, PrivilegeError
from vpntun.runtime.folders import absolute

LONGEST = 32
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Pidfile:
    """The pid file of this process, until `remove`.

    Raises InterfaceInUse if a living daemon holds the file, ConfigurationError or PrivilegeError if it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = absolute(path)
        if not path.name:
            raise ConfigurationError(f"{path} is a folder: name the pid file in it")
        fresh = self._path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._descriptor = os.open(fresh, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
                os.write(self._descriptor, f"{os.getpid()}\n".encode())
                while not (_link(fresh, self._path) or _replace(fresh, self._path)):
                    pass
            except BaseException:
                os.close(self._descriptor)
                raise
            finally:
                fresh.unlink(missing_ok=True)
        except PermissionError:
            raise PrivilegeError(f"the pid file {path} cannot be written by this user: name another file") from None
        except OSError as error:
            raise ConfigurationError(f"the pid file {path} cannot be made: {error.strerror}") from None

    def remove(self) -> None:
        """Remove the file. If the process has lost the right to do that, the file is left empty."""
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            if os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):
                self._path.unlink()
        os.close(self._descriptor)


def _link(fresh: Path, path: Path) -> bool:
    """Give the fresh file its name. Returns False if the name is taken."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    return True


def _replace(fresh: Path, path: Path) -> bool:
    """Give the fresh file the name that a dead daemon left. Returns False if that file is gone or replaced by now."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return False
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        content = os.read(descriptor, LONGEST + 1) if is_file else b""
        if not is_file or (content.strip() and not (content.strip().isdigit() and len(content) <= LONGEST)):
            raise ConfigurationError(f"{path} exists and is not a pid file: name another file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = content.decode().strip() or "another"
            raise InterfaceInUse(f"{path}: process {pid} runs already; stop it first, or name another file") from None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                fresh.rename(path)
                return True
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigurationError(f"{path} is a symbolic link: name the pid file itself") from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)
