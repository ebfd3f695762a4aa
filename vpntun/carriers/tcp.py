"""TCP carrier: accepts connections from peers that call, and dials peers that are called.

tcp_connection.py    connections
listening.py         listeners
accepted.py          limits: how many connections of strangers may stay open, and for how long
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import partial
from weakref import WeakSet

from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import CarrierUser, ConnectionOwner, Stream
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.sockets import families, family_of, marked
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.config.tunnel import Tunnel
from vpntun.core.endpoint import Endpoint, Reachable
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress
from vpntun.wire.message import Buffer
from vpntun.wire.stream_framing import SharedBuffer, fits_none

SECONDS_TO_CONNECT = 10.0
IP_BIND_ADDRESS_NO_PORT = 24


class TcpCarrier:
    """TCP for one tunnel. `accepted` owns the connections that peers have opened; `port` is 0 if no peer calls.

    `port`: the port to listen on, None if no peer calls. `mark`: the mark of every packet, 0 for none. Raises
    PortInUse, PrivilegeError or VpntunError.
    """

    can_call = False

    def __init__(self, loop: Loop, port: int | None, mark: int = 0, versions: list[int] | None = None) -> None:
        self._loop = loop
        self.port = port or 0
        self._mark = mark
        self._user: CarrierUser | None = None
        self._received = SharedBuffer()
        self.accepted = AcceptedConnections(
            loop, self._received, on_ready=self._ready, on_closed=self._closed, fits_session=self._fits_session
        )
        self._listeners: list[TcpListener] = []
        self._connections: WeakSet[TcpConnection] = WeakSet()
        self._dials: WeakSet[Dialling] = WeakSet()
        self._versions = families() if versions is None else versions
        try:
            for family in self._versions if port is not None else ():
                self._listeners.append(TcpListener(family, port or 0, mark))
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, tunnel: Tunnel, mark: int, loop: Loop) -> TcpCarrier:
        """Open the listeners that this tunnel needs."""
        return cls(loop, tunnel.tcp_port, mark)

    def start(self, user: CarrierUser) -> None:
        """Accept connections from now on."""
        self._user = user
        self._watch_listeners()

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return None: a TCP endpoint is a connection."""
        return None

    def renew(self, in_use: Iterable[Endpoint]) -> bool:
        """Return False: each connection has its own port."""
        return False

    def prepare_port(self, port: int, stack: ExitStack, *, can_be_called: bool) -> Callable[[], None]:
        """Listen on another port as well, as Carrier.prepare_port. The change ends the former listeners alone."""
        fresh: list[TcpListener] = []
        for family in self._versions if self._listeners else ():
            fresh.append(TcpListener(family, port, self._mark))
            stack.callback(fresh[-1].close)

        def change() -> None:
            former, self._listeners = self._listeners, fresh
            self.port = port if fresh else 0
            for listener in former:
                self._loop.forget(listener.fileno())
                listener.close()
            if self._user is not None:
                self._watch_listeners()

        return change

    def dial(self, candidate: Endpoint, owner: ConnectionOwner, on_done: Callable[[Stream | None], None]) -> None:
        """Open a connection, as Carrier.dial; give up after ten seconds."""
        mark = self._mark

        def done(connection: TcpConnection | None) -> None:
            if connection is not None:
                try:
                    if self._mark != mark:
                        connection.set_mark(self._mark)
                    self._watch(connection)
                except OSError:
                    connection.close()
                    on_done(None)
                    raise
            on_done(connection)

        source = candidate.flow.source
        dial = Dialling(
            candidate.address, self._loop, done, owner, self._received, mark, source, fits_session=self._fits_session
        )
        self._dials.add(dial)

    def give_up_dials(self, owner: ConnectionOwner) -> None:
        """Give up the connections that are being opened for an owner, and tell it nothing."""
        for dial in list(self._dials):
            if dial.owner is owner:
                dial.cancel()

    def set_mark(self, mark: int) -> None:
        """Set the mark of the listeners, and of all connections, as Carrier.set_mark."""
        for listener in self._listeners:
            listener.set_mark(mark)
        for connection in self._connections:
            connection.set_mark(mark)
        self._mark = mark

    def close_all_of(self, peer: Reachable) -> None:
        """Close every connection that this peer has opened."""
        self.accepted.close_all_of(peer)

    def close(self) -> None:
        """Stop listening, and close every accepted connection. The user hears of none of them."""
        self._user = None
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
            listener.close()
        self.accepted.close()

    def _watch_listeners(self) -> None:
        for listener in self._listeners:
            self._loop.watch(listener.fileno(), partial(self._accept, listener))

    def _accept(self, listener: TcpListener) -> None:
        for connection in listener.accept(self._loop, self.accepted):
            try:
                self._watch(connection)
            except OSError:
                connection.close()
                raise

    def _watch(self, connection: TcpConnection) -> None:
        if self._user is not None:
            self._connections.add(connection)
            read = partial(self._user.read_stream, connection)
            self._loop.watch(connection.fileno(), read, connection.flush, on_failure=connection.close)

    def _fits_session(self, header: Buffer) -> bool:
        return self._user is not None and self._user.fits_session(header)

    def _ready(self, connection: Stream) -> None:
        if self._user is not None and connection.peer is not None:
            self._user.can_send(connection.peer)

    def _closed(self, connection: Stream) -> None:
        if self._user is not None and connection.peer is not None:
            self._user.connection_closed(connection, connection.peer)


class Dialling:
    """A connection being opened. `on_done` is called once, with the connection, or with None on failure.

    `cancel` prevents that. `owner` will own the connection, which receives into `received`. `mark`: the mark of every
    packet, 0 for none. `source`: the address of this host to dial from; empty: the kernel chooses one. `fits_session`:
    whether the header of a data message fits a live session.
    """

    def __init__(
        self,
        address: SocketAddress,
        loop: Loop,
        on_done: Callable[[TcpConnection | None], None],
        owner: ConnectionOwner,
        received: SharedBuffer,
        mark: int = 0,
        source: bytes = b"",
        fits_session: Callable[[Buffer], bool] = fits_none,
    ) -> None:
        self._socket: socket.socket | None = None
        self._is_cancelled = False
        self._refusal = 0
        self._address = address
        self._loop = loop
        self._on_done = on_done
        self.owner = owner
        self._received = received
        self._fits_session = fits_session
        try:
            new = socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            log.info("no socket for a TCP connection could be opened: %s", error.strerror)
            loop.call_later(0.0, partial(self._fail, error))
            return
        self._socket = marked(new, mark)
        if source:
            _bind_to(new, source)
        self._refusal = new.connect_ex(address)
        loop.watch(new.fileno(), self._finish, self._finish)
        loop.await_writable(new.fileno(), True)
        loop.call_later(SECONDS_TO_CONNECT, self._give_up)

    def cancel(self) -> None:
        """Give up, and call nobody."""
        self._is_cancelled = True
        self._close()

    def _fail(self, error: OSError) -> None:
        if not self._is_cancelled:
            self.owner.dial_failed(error)
            self._on_done(None)

    def _finish(self) -> None:
        new, self._socket = self._socket, None
        if new is None:
            return
        self._loop.forget(new.fileno())
        try:
            new.getpeername()
        except OSError:
            number = new.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or self._refusal
            new.close()
            self._fail(OSError(number, os.strerror(number)))
        else:
            connection = TcpConnection(new, self._address, self._loop, self.owner, self._received, self._fits_session)
            self._on_done(connection)

    def _give_up(self) -> None:
        if self._socket is not None:
            self._close()
            self._fail(OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))

    def _close(self) -> None:
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            with suppress(OSError):
                self._socket.close()
            self._socket = None


def _bind_to(new: socket.socket, source: bytes) -> None:
    """Bind a socket to a source address, if this host still has it. Its port is free for other destinations."""
    with suppress(OSError):
        new.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        new.bind((socket.inet_ntop(new.family, source), 0))
