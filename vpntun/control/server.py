"""The control socket, /run/vpntun/INTERFACE.sock: the operator asks a running tunnel, or tells it something.

    GET  /v1/status    what the tunnel is doing (docs/control.rst)
    POST /v1/stop      the answer leaves, then the loop ends
    POST /v1/reload    the configuration file is read again; 409 and the reason where that changes nothing
    POST /v1/reset     the last timestamp of ?peer= is forgotten; 404 where there is no such peer, 409 where several are

Law: whoever may connect is root or this process's user, is looked after a little at a time, and never waited for.

    mode 0600 before it has a name, in a folder of 0700; besides, who connects is looked at (SO_PEERCRED)
    one request at a time of each client, within 10 s from its first byte to its answer's last
    a client that does not read its answers is not read from
    8 clients; for one more the longest idle goes, or where all are busy the oldest

Two processes may take the socket's name at the same time, so that is done with the folder locked: a name that somebody
answers is theirs (InterfaceInUse), one that nobody does was left by a process that was killed, and is replaced.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from logging import INFO
from pathlib import Path
from typing import Any

from vpntun.control.http import Answer, Exchange, Route, follow, refusal
from vpntun.errors import AmbiguousPeer, InterfaceInUse, NoSuchPeer, PrivilegeError, VpntunError
from vpntun.runtime.folders import run_folder
from vpntun.runtime.log import Limited
from vpntun.runtime.loop import Loop

MOST_CLIENTS = 8
SECONDS_TO_FINISH = 10.0
READ_SIZE = 4096

_PEER = struct.Struct("iII")
"""Linux's struct ucred: process, user, group."""


def socket_path(interface: str, folder: Path | None = None) -> Path:
    """Where the tunnel of this interface listens; `folder` None: this user's own."""
    return (folder or run_folder()) / f"{interface}.sock"


def other_end(connected: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a unix socket, as they were when it connected or began to listen."""
    process, user, _ = _PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return process, user


class ControlServer:
    """Answers on the socket until it is closed.

    `stop` ends the loop. `reload` raises VpntunError where it cannot, with the reason. `reset` takes what the client
    calls the peer, None for the only one, returns its public key, and raises NoSuchPeer or AmbiguousPeer. Nothing in
    what `status` gives is secret.
    """

    def __init__(
        self,
        interface: str,
        loop: Loop,
        *,
        status: Callable[[], dict[str, Any]],
        stop: Callable[[], None],
        reload: Callable[[], None],
        reset: Callable[[str | None], str],
        folder: Path | None = None,
    ) -> None:
        """Raises InterfaceInUse where another vpntun runs the interface, PrivilegeError or VpntunError."""
        self._loop = loop
        self._clients: list[_Client] = []
        self._reload = reload
        self._refused = Limited(INFO, "process %d of user %d may not use the control socket")
        self._reset = reset
        self._routes = {
            "/v1/status": Route("GET", lambda: Answer(HTTPStatus.OK, status())),
            "/v1/stop": Route("POST", lambda: Answer(HTTPStatus.ACCEPTED, {"stopping": True}, then=stop)),
            "/v1/reload": Route("POST", self._answer_to_reload),
            "/v1/reset": Route("POST", self._answer_to_reset, frozenset({"peer"})),
        }
        self._path = socket_path(interface, folder)
        self._listener, self._identity = _listen(interface, self._path)
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Let every client go, and take the socket away, unless its name is another's by now."""
        for client in list(self._clients):
            client.close()
        self._loop.forget(self._listener.fileno())
        # A process that has given its privileges up may not: what it leaves is dead, and is replaced.
        with suppress(OSError), _locked(self._path.parent):
            if _identity_of(self._path) == self._identity:
                self._path.unlink()
        self._listener.close()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener)
        if accepted is None:
            return
        new, _ = accepted
        process, user = other_end(new)
        if user not in (0, os.geteuid()):
            self._refused(process, user)
            new.close()
            return
        if len(self._clients) >= MOST_CLIENTS:
            min(self._clients, key=lambda client: (client.busy, client.since)).close()
        self._clients.append(_Client(new, self._loop, self._answer, self._clients.remove))

    def _answer(self, method: str, target: str) -> Answer:
        try:
            return follow(self._routes, method, target)
        except (VpntunError, OSError) as error:
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        except Exception:
            self._loop.internal_errors.note()
            return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error: the tunnel's log has it")

    def _answer_to_reload(self) -> Answer:
        try:
            self._reload()
        except VpntunError as error:
            return refusal(HTTPStatus.CONFLICT, str(error))
        return Answer(HTTPStatus.OK, {"reloaded": True})

    def _answer_to_reset(self, peer: str | None = None) -> Answer:
        try:
            return Answer(HTTPStatus.OK, {"public_key": self._reset(peer)})
        except NoSuchPeer as error:
            return refusal(HTTPStatus.NOT_FOUND, str(error))
        except AmbiguousPeer as error:
            return refusal(HTTPStatus.CONFLICT, str(error))


class _Client:
    """One connection. `busy`: a request has begun whose answer has not left; since when, or since when it is not."""

    def __init__(
        self,
        new: socket.socket,
        loop: Loop,
        answer: Callable[[str, str], Answer],
        on_closed: Callable[[_Client], None],
    ) -> None:
        self.busy = False
        self.since = loop.now
        self._socket = new
        self._loop = loop
        self._exchange = Exchange(answer)
        self._on_closed = on_closed
        self._unsent = memoryview(b"")
        self._then: Callable[[], None] | None = None
        self._open = True
        self._timed = False
        new.setblocking(False)
        loop.watch(new.fileno(), self._read, self._go_on, on_failure=self.close)

    def close(self) -> None:
        """Close the connection, once; what was to be done behind an answer is done all the same."""
        if not self._open:
            return
        self._open = False
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        self._on_closed(self)
        self._answered()

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
        self._exchange.take(data)
        self._go_on()

    def _go_on(self) -> None:
        """Answer what can be answered, as far as the other end takes it."""
        while self._open:
            if self._unsent and not self._send():
                break
            self._answered()
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
        """Whether all of it has left."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            return False
        except OSError:
            self._unsent = memoryview(b"")
            self.close()
        return not self._unsent

    def _answered(self) -> None:
        then, self._then = self._then, None
        if then is not None:
            self.since = self._loop.now
            then()

    def _keep_time(self) -> None:
        busy = bool(self._unsent) or not self._exchange.idle
        if busy != self.busy:
            self.busy, self.since = busy, self._loop.now
        if busy and not self._timed:
            self._timed = True
            self._loop.call_later(SECONDS_TO_FINISH, self._look_at_time)

    def _look_at_time(self) -> None:
        self._timed = False
        left = self.since + SECONDS_TO_FINISH - self._loop.now
        if not self._open or not self.busy:
            return
        if left <= 0:
            self.close()
        else:
            self._timed = True
            self._loop.call_later(left, self._look_at_time)


def _listen(interface: str, path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket of mode 0600, and what tells its name from that of another."""
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.parent):
            _make_way(interface, path)
            os.fchmod(new.fileno(), 0o600)  # which bind takes over (unix_bind, net/unix/af_unix.c)
            new.bind(str(path))
            new.listen(MOST_CLIENTS)
            return new, _identity_of(path)
    except VpntunError:
        new.close()
        raise
    except OSError as error:
        new.close()
        kind = PrivilegeError if isinstance(error, PermissionError) else VpntunError
        raise kind(
            f"the control socket {path} cannot be made: {error.strerror or error}; "
            f"{path.parent} must be a folder of this user's own"
        ) from error


def _make_way(interface: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # so many wait there to be accepted: somebody listens
            raise InterfaceInUse(_in_use(interface, "")) from None
        raise InterfaceInUse(_in_use(interface, f", process {other_end(probe)[0]}"))


def _in_use(interface: str, who: str) -> str:
    return (
        f"another vpntun runs {interface} already{who}: 'vpntun show {interface}' says what it does, "
        f"'vpntun down {interface}' ends it"
    )


def _identity_of(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While it holds, no other process takes a name in the folder or gives one up."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
