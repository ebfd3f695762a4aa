"""Unix socket server for any protocol: who may bind the name, who may connect, limits on clients.

What a connection says is up to the `Exchange` that the server makes for it. Only root and this process's user may
connect. They are served a little at a time, and the loop never waits for them.

    mode 0600 before the socket has a name, in a folder of mode 0700; each client's user is checked too (SO_PEERCRED)
    one request of a client at a time, within 60 s from its first byte to the last byte of its answer, without a pause
    of 10 s; a notice says so if a client is too slow
    a client that does not read its answers is not read from
    8 clients; one more replaces the one that was idle for the longest, or the oldest if all are busy

Two processes may want the socket's name at the same time, so they take it with the folder locked. If a process answers
behind the name, it keeps it (SocketInUse). If nobody does, a killed process left it, and it is replaced. A server may
have a second name, which it takes where a process of another network namespace has the first.
"""

from __future__ import annotations

import fcntl
import glob
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import INFO
from pathlib import Path
from typing import Protocol

from vpntun.control.listening import listens_here
from vpntun.errors import PrivilegeError, VpntunError
from vpntun.runtime.folders import make_folder
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop

MOST_CLIENTS = 8
SECONDS_OF_SILENCE = 10.0
SECONDS_TO_FINISH = 60.0
READ_SIZE = 4096
MOST_ANSWERS_PER_TURN = 4

_CREDENTIALS = struct.Struct("iII")
"""Linux's struct ucred: process, user, group."""

Reply = tuple[bytes, Callable[[], None] | None]
"""The bytes of an answer, and what to do once they have left, if anything."""


class Exchange(Protocol):
    """The requests and answers of one connection."""

    @property
    def idle(self) -> bool:
        """Whether no part of a request is waiting to be answered."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more answers, so that the connection may close once the last one has left."""

    def take(self, data: bytes) -> None:
        """Take bytes that came in; b"" is the end of the stream. Never called after that, or once `ended`."""

    def next_answer(self) -> Reply | None:
        """Return the next answer, or None while there is none."""


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


class UnixServer:
    """A listening socket and its clients. `name` is what the log and errors call it. `path`: where it listens."""

    def __init__(
        self,
        name: str,
        path: Path,
        loop: Loop,
        new_exchange: Callable[[], Exchange],
        *,
        path_beside: Path | None = None,
    ) -> None:
        """Bind the name and listen. Raises SocketInUse, PrivilegeError or VpntunError.

        `path_beside`: in the same folder, used where a process of another network namespace listens at `path`.
        """
        self._name = name
        self._loop = loop
        self._new_exchange = new_exchange
        self._clients: list[_Client] = []
        self._refused = Limited(INFO, "process %d of user %d may not use %s")
        self._too_slow = Limited(NOTICE, "process %d was too slow to send its request to %s, or to read the answer")
        self._listener, self.path, self._identity = _listen(name, path, path_beside)
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Close all connections, and remove the socket unless its name belongs to another by now."""
        for client in list(self._clients):
            client.close()
        self._loop.forget(self._listener.fileno())
        # Without its former privileges this process may fail here: the socket it leaves is dead, and gets replaced.
        with suppress(OSError), _locked(self.path.parent):
            if _identity_of(self.path) == self._identity:
                self.path.unlink()
        self._listener.close()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener)
        if accepted is None:
            return
        new, _ = accepted
        process, user = other_end(new)
        if user not in (0, os.geteuid()):
            self._refused(process, user, self._name)
            new.close()
            return
        if len(self._clients) >= MOST_CLIENTS:
            min(self._clients, key=lambda client: (client.busy, client.since)).close()
        exchange, name = self._new_exchange(), self._name
        self._clients.append(
            _Client(new, self._loop, exchange, self._clients.remove, lambda: self._too_slow(process, name))
        )


def other_end(connected: socket.socket) -> tuple[int, int]:
    """Return process and user at the other end of a unix socket, as of when it connected or began to listen."""
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return process, user


class _Client:
    """One connection. `busy`: a request has begun and its answer has not left. `since`: when `busy` last changed."""

    def __init__(
        self,
        new: socket.socket,
        loop: Loop,
        exchange: Exchange,
        on_closed: Callable[[_Client], None],
        on_too_slow: Callable[[], None],
    ) -> None:
        self.busy = False
        self.since = self._last_progress = loop.now
        self._socket = new
        self._loop = loop
        self._exchange = exchange
        self._on_closed = on_closed
        self._on_too_slow = on_too_slow
        self._unsent = memoryview(b"")
        self._then: Callable[[], None] | None = None
        self._open = True
        self._timer_runs = False
        new.setblocking(False)
        loop.watch(new.fileno(), self._read, self._go_on, on_failure=self.close)

    def close(self) -> None:
        """Close the connection, once. What was to follow an unsent answer is still done."""
        if not self._open:
            return
        self._open = False
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._on_closed(self)
        self._finish_answer()

    def _read(self) -> None:
        if not self._open:
            return
        try:
            data = self._socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._last_progress = self._loop.now
        self._exchange.take(data)
        self._go_on()

    def _go_on(self) -> None:
        """Answer requests for as long as the other end takes the answers, a few of them a turn of the loop."""
        for _ in range(MOST_ANSWERS_PER_TURN):
            if not self._open or (self._unsent and not self._send()):
                break
            self._finish_answer()
            answer = self._exchange.next_answer()
            if answer is None:
                break
            self._unsent, self._then = memoryview(answer[0]), answer[1]
        if self._open and self._exchange.ended and not self._unsent:
            self.close()
        if self._open:
            self._loop.await_writable(self._socket.fileno(), bool(self._unsent), alone=True)
            self._keep_time()

    def _send(self) -> bool:
        """Send what the kernel takes, and return whether all of it has left."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self._last_progress = self._loop.now
        except BlockingIOError:
            return False
        except OSError:
            self._unsent = memoryview(b"")
            self.close()
        return not self._unsent

    def _finish_answer(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self.since = self._loop.now
            then()

    def _keep_time(self) -> None:
        busy = bool(self._unsent) or not self._exchange.idle
        if busy != self.busy:
            self.busy, self.since = busy, self._loop.now
        if busy and not self._timer_runs:
            self._timer_runs = True
            self._loop.call_later(SECONDS_OF_SILENCE, self._check_time)

    def _check_time(self) -> None:
        self._timer_runs = False
        if not self._open or not self.busy:
            return
        end = min(self._last_progress + SECONDS_OF_SILENCE, self.since + SECONDS_TO_FINISH)
        left = end - self._loop.now
        if left <= 0:
            self._on_too_slow()
            self.close()
        else:
            self._timer_runs = True
            self._loop.call_later(left, self._check_time)


def _listen(name: str, path: Path, beside: Path | None) -> tuple[socket.socket, Path, tuple[int, int]]:
    """Return a listening socket of mode 0600, its path, and the identity of its file."""
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        make_folder(path.parent)
        with _locked(path.parent):
            path = _free_path(path, beside)
            os.fchmod(new.fileno(), 0o600)  # bind gives the file this mode (unix_bind, net/unix/af_unix.c)
            new.bind(str(path))
            new.listen(MOST_CLIENTS)
            return new, path, _identity_of(path)
    except SocketInUse:
        new.close()
        raise
    except OSError as error:
        new.close()
        kind = PrivilegeError if isinstance(error, PermissionError) else VpntunError
        raise kind(
            f"{name} {path} cannot be made: {error.strerror or error}; "
            f"{path.parent} must be a folder of this user's own"
        ) from error


def _free_path(path: Path, beside: Path | None) -> Path:
    """Return the path to bind, free of dead sockets. Raises SocketInUse where neither is to be had.

    With a second name, the dead sockets of all namespaces are removed: the next one will have a name of its own.
    """
    if beside is not None:
        for other in path.parent.glob(f"{glob.escape(path.stem)}:*{path.suffix}"):
            with suppress(SocketInUse, OSError):
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
    """Remove a dead socket. Raises SocketInUse where a process listens behind the name."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue of new connections is full, so a process does listen
            raise SocketInUse(None, is_here=listens_here(path)) from None
        # The kernel says 0 for a process of another PID namespace.
        raise SocketInUse(other_end(probe)[0] or None, is_here=listens_here(path))


def _identity_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, so that meanwhile no other process takes or gives up a name in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
