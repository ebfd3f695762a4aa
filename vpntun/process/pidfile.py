"""The pid file: one line with the number of the daemon, locked for as long as that lives.

The lock says whether its daemon lives, not the number, which another process may have by now: a file that is locked is
refused, any other was left behind and is replaced. It comes into being whole and locked, under its name from the first
moment, and nobody else's is ever overwritten: an existing file is replaced only while its own lock is held here, and
only if a number is all that is in it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, InterfaceInUse, PrivilegeError

LONGEST = 32
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Pidfile:
    """This process's, until `remove`.

    Raises InterfaceInUse where a living daemon holds the file, ConfigurationError or PrivilegeError where it cannot be.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        if not path.name:
            raise ConfigurationError(f"{path} is a folder: name the pid file in it")
        fresh = self._path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._descriptor = os.open(fresh, _FLAGS | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                os.write(self._descriptor, f"{os.getpid()}\n".encode())
                while not (_link(fresh, self._path) or _replace(fresh, self._path)):
                    pass
            except BaseException:
                os.close(self._descriptor)
                raise
            finally:
                fresh.unlink(missing_ok=True)
        except PermissionError:
            raise PrivilegeError(f"the pid file {path} cannot be written by this user: name another") from None
        except OSError as error:
            raise ConfigurationError(f"the pid file {path} cannot be made: {error.strerror}") from None

    def remove(self) -> None:
        """Take it away; one that lies where this user may not, by now, is left empty."""
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            if os.path.samestat(self._path.lstat(), os.fstat(self._descriptor)):
                self._path.unlink()
        os.close(self._descriptor)


def _link(fresh: Path, path: Path) -> bool:
    """Give the name where nobody has it."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        return False
    return True


def _replace(fresh: Path, path: Path) -> bool:
    """Give the name that a dead daemon has left; False where it is gone or another's by now."""
    with _opened(path) as descriptor:
        if descriptor is None:
            return False
        content = os.read(descriptor, LONGEST + 1)
        if content.strip() and not (content.strip().isdigit() and len(content) <= LONGEST):
            raise ConfigurationError(f"{path} is there, and is no pid file: name another")
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
