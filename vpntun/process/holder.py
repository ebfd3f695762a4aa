"""Holder of a pid file: the daemon that has locked it, whatever number the file contains.

    1. ask the kernel who holds the lock
    2. open a pidfd for that process
    3. ask again: if the holder is the same, the pidfd cannot belong to a process that got the number later
    4. send the signal through the pidfd, and wait for the process to end by it

So a file that a killed daemon left never leads to another process.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vpntun.errors import ConfigurationError, InterfaceInUse, NotInTime, NotRunning, PrivilegeError
from vpntun.runtime.child import ends_within

_LOCK = struct.Struct("hhqqi0q")
"""Linux's struct flock: type, whence, start, length, process."""


def find_holder(path: Path) -> int:
    """Return the process id of the daemon that holds a pid file.

    Raises NotRunning if there is none, InterfaceInUse if it is in another namespace, and PrivilegeError or
    ConfigurationError if the file cannot be read.
    """
    with _opened(path) as descriptor:
        return _holder_of(descriptor, path)


def send_signal(path: Path, number: signal.Signals, seconds: float | None = None) -> int:
    """Send a signal to the daemon that holds a pid file; return its process id.

    `seconds`: how long to wait until it has ended; None does not wait. Raises the errors of `find_holder`, NotInTime,
    and PrivilegeError if this user may not send it signals.
    """
    with _opened(path) as descriptor, _pidfd_of_holder(descriptor, path) as (process, pidfd):
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            raise NotRunning(f"no vpntun holds {path} any more") from None
        except PermissionError:
            raise PrivilegeError(f"process {process} belongs to another user: only root may end or reload it") from None
        if seconds is not None and not ends_within(pidfd, seconds):
            raise NotInTime(f"process {process} has not ended within {seconds:g} s: end it by KILL")
        return process


@contextmanager
def _pidfd_of_holder(descriptor: int, path: Path) -> Iterator[tuple[int, int]]:
    process = _holder_of(descriptor, path)
    try:
        pidfd = os.pidfd_open(process)
    except ProcessLookupError:
        raise NotRunning(f"no vpntun holds {path} any more") from None
    try:
        if _holder_of(descriptor, path) != process:
            raise NotRunning(f"process {process} has just given up {path}")
        yield process, pidfd
    finally:
        os.close(pidfd)


def _holder_of(descriptor: int, path: Path) -> int:
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, process = _LOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    if kind == fcntl.F_UNLCK:
        raise NotRunning(f"no vpntun holds {path}")
    if process <= 0:
        raise InterfaceInUse(f"{path} is held by a process of another PID namespace: end or reload it there")
    return int(process)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotRunning(f"no vpntun holds {path}: there is no such file") from None
    except PermissionError:
        raise PrivilegeError(f"the pid file {path} cannot be read by this user") from None
    except OSError as error:
        raise ConfigurationError(f"{path} is not a pid file: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)
