"""Session of one client of the SOCKS5 proxy.

    state        awaits                                          next state
    greeting     the client's methods of authentication          request; refused unless it offers to have none
    request      the client's request                            connecting, associated or refused
    connecting   the connection on the other side of the tunnel  relaying or refused
    relaying     the end of both directions                      (end)
    associated   the end of the client's connection              (end)
    refused      the same, so that the client can read why       (end)

The client has SECONDS_FOR_REQUEST to make its request, and SECONDS_TO_CLOSE once it is refused. Only the bytes of the
greeting and of the request are read here: the relay passes on those that follow.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vpntun.errors import BadPacket
from vpntun.forwards.connecting import Connecting, connect, unless_gone
from vpntun.forwards.connections import Connections
from vpntun.forwards.relay import Relay, prepare
from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.socks.association import Association
from vpntun.socks.messages import (
    CONNECT,
    FAILED,
    HOST_UNREACHABLE,
    NETWORK_UNREACHABLE,
    NO_AUTHENTICATION,
    NO_METHOD,
    NOT_ALLOWED,
    REFUSED,
    SUCCEEDED,
    TIMED_OUT,
    UDP_ASSOCIATE,
    UNKNOWN_ADDRESS_TYPE,
    UNKNOWN_COMMAND,
    Request,
    UnknownAddressType,
    choice_of,
    methods_of,
    reply_of,
    size_of_greeting,
    size_of_request,
)
from vpntun.types import Place, written

SECONDS_FOR_REQUEST = 30.0
SECONDS_TO_CLOSE = 5.0
READ_SIZE = 4096

CODES = {
    errno.ENETUNREACH: NETWORK_UNREACHABLE,
    errno.ENETDOWN: NETWORK_UNREACHABLE,
    errno.EADDRNOTAVAIL: NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: HOST_UNREACHABLE,
    errno.EHOSTDOWN: HOST_UNREACHABLE,
    errno.ECONNREFUSED: REFUSED,
    errno.ETIMEDOUT: TIMED_OUT,
    errno.EACCES: NOT_ALLOWED,
    errno.EPERM: NOT_ALLOWED,
    errno.EAFNOSUPPORT: UNKNOWN_ADDRESS_TYPE,
}
"""Codes of a reply for the errors of a connection."""


class Session:
    """One client, and what it has asked for. `on_end` is called once, when the session is over or `close` is called."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        side: Side,
        connections: Connections,
        on_end: Callable[[Session], None],
    ) -> None:
        self._loop = loop
        self._client = client
        self._side = side
        self._connections = connections
        self._on_end = on_end
        self._message = b""
        self._size_of, self._take = size_of_greeting, self._take_greeting
        self._is_open = self._awaits_request = True
        self._connecting: Connecting | None = None
        self._passes_on: Relay | Association | None = None
        self.failure: str | None = None
        """Why the client was refused, as the end of a sentence about it."""
        loop.watch(client.fileno(), self._read, on_failure=self.close)
        loop.call_later(SECONDS_FOR_REQUEST, unless_gone(self, Session._check_time))

    @property
    def sent(self) -> int:
        """Number of bytes passed on from the client to the other side of the tunnel."""
        return self._passes_on.sent if self._passes_on is not None else 0

    @property
    def received(self) -> int:
        """Number of bytes passed on to the client."""
        return self._passes_on.received if self._passes_on is not None else 0

    def close(self) -> None:
        """End the session at once."""
        if not self._is_open:
            return
        self._is_open = False
        if self._connecting is not None:
            self._connecting.close()
        if self._passes_on is not None:
            self._passes_on.close()
        if not isinstance(self._passes_on, Relay):
            self._loop.forget(self._client.fileno())
            self._client.close()
        self._on_end(self)

    def _read(self) -> None:
        """Read what is missing of a greeting or a request, and take it once it is whole."""
        try:
            data = self._client.recv(self._size_of(self._message) - len(self._message))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._message += data
        try:
            if len(self._message) == self._size_of(self._message):
                message, self._message = self._message, b""
                self._take(message)
        except UnknownAddressType:
            self._refuse(reply_of(UNKNOWN_ADDRESS_TYPE), "gave an address of an unknown type")
        except BadPacket as error:
            if error.reason == "no SOCKS5":
                self._fail("spoke another protocol: set it to SOCKS version 5")
            else:
                self._refuse(reply_of(FAILED), "gave a name that no host can have")

    def _take_greeting(self, message: bytes) -> None:
        if NO_AUTHENTICATION in methods_of(message):
            self._size_of, self._take = size_of_request, self._take_request
            self._answer(choice_of(NO_AUTHENTICATION))
        else:
            self._refuse(choice_of(NO_METHOD), "insists on a password: set none in it")

    def _take_request(self, message: bytes) -> None:
        request = Request.parse(message)
        self._awaits_request = False
        if request.command == CONNECT:
            self._connect(request.destination)
        elif request.command == UDP_ASSOCIATE and self._client.family != socket.AF_UNIX:
            self._associate()
        else:
            self._refuse(reply_of(UNKNOWN_COMMAND), f"asked for command {request.command}, which is not offered here")

    def _connect(self, destination: Place) -> None:
        self._loop.forget(self._client.fileno())
        self._loop.watch_changes(self._client.fileno(), self._look_for_end, lambda: None, self.close)
        self._connecting = connect(
            self._loop, self._side, destination, self._connected, partial(self._not_connected, destination)
        )

    def _look_for_end(self) -> None:
        """Give up if the client disconnects while the connection is being made. Its data is left for the relay."""
        try:
            if not self._client.recv(1, socket.MSG_PEEK):
                self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _connected(self, far: socket.socket) -> None:
        self._loop.forget(self._client.fileno())
        if not self._answer(reply_of(SUCCEEDED, far.getsockname()[:2])):
            far.close()
            return
        try:
            self._passes_on = self._connections.relay(self._client, far, lambda _: self.close())
        except OSError:  # one of the two has gone; both are closed
            self.close()

    def _not_connected(self, destination: Place, error: OSError) -> None:
        code = HOST_UNREACHABLE if isinstance(error, socket.gaierror) else CODES.get(error.errno or 0, FAILED)
        why = error.strerror or str(error)
        self._refuse(reply_of(code), f"could not be connected to {written(destination)}: {why}")

    def _associate(self) -> None:
        try:
            association = Association(self._loop, self._client, self._side, self._connections.waiting)
        except OSError as error:
            self._refuse(reply_of(FAILED), f"could not be given a socket: {error.strerror}")
            return
        self._passes_on = association
        prepare(self._client)
        if self._answer(reply_of(SUCCEEDED, association.place)):
            self._await_end()

    def _refuse(self, answer: bytes, failure: str) -> None:
        """Answer, and give the client time to read it: with unread data, closing at once would discard the answer."""
        self.failure, self._awaits_request = failure, False
        if self._answer(answer):
            with suppress(OSError):
                self._client.shutdown(socket.SHUT_WR)
            self._await_end()
            self._loop.call_later(SECONDS_TO_CLOSE, self.close)

    def _await_end(self) -> None:
        """Discard what the client sends, and close once it disconnects."""
        self._loop.forget(self._client.fileno())
        self._loop.watch(self._client.fileno(), self._discard, on_failure=self.close)

    def _discard(self) -> None:
        try:
            if not self._client.recv(READ_SIZE):
                self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _answer(self, answer: bytes) -> bool:
        """Send a few bytes, for which a new connection has room; if the client is gone, close and return False."""
        try:
            self._client.send(answer)
        except OSError:
            self.close()
        return self._is_open

    def _check_time(self) -> None:
        if self._awaits_request:
            self._fail(f"made no request within {SECONDS_FOR_REQUEST:g} s")

    def _fail(self, failure: str) -> None:
        if self._is_open:
            self.failure = failure
            self.close()
