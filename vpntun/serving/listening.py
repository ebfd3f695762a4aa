"""Names of listening unix sockets: who gets one, and in which network namespace its owner is.

Two processes may want a name at the same time, so they take it with the folder locked. If a process answers behind the
name, it keeps it (SocketInUse). If nobody does, a killed process left it, and it is replaced. A server may have a
second name, which it takes where a process of another network namespace has the first.

A socket's path says nothing about the namespace of the process behind it: several may share /run. But each namespace
has a list of its own sockets, with the paths that they were bound to.
"""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.clock import boottime
from vpntun.runtime.folders import make_folder
from vpntun.types import LONGEST_SOCKET_PATH

SOCKETS = Path("/proc/self/net/unix")
LISTENS = 0x10000
OWNERS_ALONE = 0o600
SECONDS_FOR_LOCK, SECONDS_BETWEEN_ATTEMPTS = 1.0, 0.01
OWN_FOLDER, SOME_FOLDER = "a folder of this user's own", "a folder that exists and that this user may write to"

_CREDENTIALS = struct.Struct("iII")
"""Linux's struct ucred: process, user, group."""


class SocketInUse(Exception):
    """Another process listens under the name. `process`: its id, None where it cannot be told.

    `is_here`: the socket is of this network namespace. The text names the process.
    """

    def __init__(self, process: int | None, *, is_here: bool) -> None:
        super().__init__(process)
        self.process = process
        self.is_here = is_here

    def __str__(self) -> str:
        who = "another process" if self.process is None else f"process {self.process}"
        return who if self.is_here else f"{who} of another network namespace"


class _NotASocket(Exception):
    """A file of another kind has the name. It may be anybody's work, so it is never removed."""


def listen(
    name: str, path: Path, beside: Path | None, backlog: int, mode: int = OWNERS_ALONE
) -> tuple[socket.socket, Path, tuple[int, int]]:
    """Return a listening socket, its path, and the identity of its file.

    `name`: what errors call the socket. `beside`: the second name. `mode`: who may connect; if not the owner alone, the
    folder is not made, since its owner has to decide who may enter. Raises SocketInUse, PrivilegeError or VpntunError.
    """
    size = len(os.fsencode(path))
    if size > LONGEST_SOCKET_PATH:
        raise VpntunError(
            f"{name} {path} cannot be made: its path has {size} bytes, and a socket's has at most "
            f"{LONGEST_SOCKET_PATH}: give a shorter path"
        )
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if mode == OWNERS_ALONE:
            make_folder(path.parent)
        with _locked(path.parent):
            path = _free_path(path, beside)
            os.fchmod(new.fileno(), mode)  # bind gives the file this mode less the umask (net/unix/af_unix.c)
            umask = os.umask(0o777 & ~mode)
            try:
                new.bind(str(path))
            finally:
                os.umask(umask)
            new.listen(backlog)
            return new, path, identity_of(path)
    except SocketInUse:
        new.close()
        raise
    except _NotASocket:
        new.close()
        raise VpntunError(f"{name} {path} cannot be made: this file is no socket: move it away") from None
    except OSError as error:
        new.close()
        kind = PrivilegeError if isinstance(error, PermissionError) else VpntunError
        raise kind(
            f"{name} {path} cannot be made: {error.strerror or error}; "
            f"{path.parent} must be {OWN_FOLDER if mode == OWNERS_ALONE else SOME_FOLDER}"
        ) from error


def give_up(path: Path, identity: tuple[int, int]) -> None:
    """Remove the socket of this identity, unless its name belongs to another by now.

    A process without its former privileges may fail: the socket that it leaves is dead, and gets replaced.
    """
    with suppress(OSError), _locked(path.parent):
        if identity_of(path) == identity:
            path.unlink()


def identity_of(path: Path) -> tuple[int, int]:
    """Return the identity of the file that has this name: device and inode number. Raises OSError."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def listens_here(path: Path, sockets: Path = SOCKETS) -> bool:
    """Whether the unix socket that listens at a path, if one does, is of this network namespace.

    If there is no list, the answer is yes.
    """
    try:
        lines = sockets.read_bytes().splitlines()[1:]
    except OSError:
        return True
    folder, name = os.path.realpath(path.parent), os.fsencode(path.name)
    listening = filter(None, map(_listening, lines))
    folders = (os.path.dirname(each) for each in listening if os.path.basename(each) == name)
    return any(os.fsdecode(os.path.realpath(each)) == folder for each in folders)


def names_listening_here(folder: Path, sockets: Path = SOCKETS) -> list[str]:
    """List the names of the sockets in a folder that listen in this network namespace. That takes no right."""
    try:
        lines = sockets.read_bytes().splitlines()[1:]
    except OSError:
        return []
    paths = [Path(os.fsdecode(each)) for each in map(_listening, lines) if each is not None]
    return sorted(path.name for path in paths if path.parent == folder)


def other_end(connected: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a unix socket, as of when it connected or began to listen."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return process, user


def _free_path(path: Path, beside: Path | None) -> Path:
    """Return the path to bind, free of dead sockets. Raises SocketInUse where neither is to be had.

    With a second name, dead sockets under the second names of other namespaces are removed, too: nobody would replace
    those of a namespace that is gone.
    """
    if beside is not None:
        for other in path.parent.glob(f"{glob.escape(path.stem)}:*{path.suffix}"):
            with suppress(SocketInUse, _NotASocket, OSError):
                _free_name(other)
        _free_name(beside)
    try:
        _free_name(path)
    except SocketInUse as taken:
        if beside is None or taken.is_here:
            raise
        return beside
    return path


def _free_name(path: Path) -> None:
    """Remove a dead socket. Raises SocketInUse where a process listens behind the name, and _NotASocket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            if not path.is_socket():
                raise _NotASocket(path) from None
            path.unlink()
            return
        except BlockingIOError:  # its queue of new connections is full, so a process does listen
            raise SocketInUse(None, is_here=listens_here(path)) from None
        # The kernel says 0 for a process of another PID namespace.
        raise SocketInUse(other_end(probe)[0] or None, is_here=listens_here(path))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that meanwhile no other process takes or gives up a name in it.

    Whoever may read the folder may lock it, for ever. So after a second this goes on without the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    end = boottime() + SECONDS_FOR_LOCK
    try:
        while not _is_locked(descriptor) and boottime() < end:
            time.sleep(SECONDS_BETWEEN_ATTEMPTS)
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int) -> bool:
    """Lock a folder that nobody else has locked, and return whether this was possible."""
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _listening(line: bytes) -> bytes | None:
    """Return the path of a listening socket from its line: address, references, protocol, flags, type, state, inode."""
    fields = line.split(None, 7)
    return fields[7] if len(fields) == 8 and int(fields[3], 16) & LISTENS else None
