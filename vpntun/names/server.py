"""Sockets of the name server: UDP and TCP, port 53, on each address of the tunnel, for its peers alone.

They are bound to the tunnel's device, so a packet to one of these addresses that arrives on another device finds no
socket (tun/bound_sockets.py).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from vpntun.carriers.sockets import bound, packed
from vpntun.config.values import DNS_PORT
from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.names.answering import LARGEST_QUESTION
from vpntun.names.exchange import NameExchange
from vpntun.names.responder import Responder
from vpntun.runtime.loop import Loop
from vpntun.serving.clients import Clients
from vpntun.tun.bound_sockets import accept_only_from, bind_to_device
from vpntun.types import IpAddress, SocketAddress, written

MOST_CONNECTIONS = 64
SECONDS_IDLE = 30.0
"""How long a connection may be without a question (RFC 7766, section 6.2.3, advises a few seconds)."""
DATAGRAMS_PER_TURN = 16
IP_FREEBIND = 15
"""Linux's socket option, which the socket module lacks: an IPv6 address is not bindable while it is being checked."""


class NameServer:
    """All sockets, until `close`."""

    def __init__(
        self, loop: Loop, responder: Responder, device: str, addresses: Sequence[IpAddress], *, port: int = DNS_PORT
    ) -> None:
        """Bind the addresses. Raises PortInUse, PrivilegeError or VpntunError, and then nothing is open."""
        self._loop = loop
        self._responder = responder
        self._open: list[socket.socket] = []
        self._listeners: list[_Listener] = []
        try:
            for address in addresses:
                self._open_datagrams(_bound(device, address, port, socket.SOCK_DGRAM))
                listener = _bound(device, address, port, socket.SOCK_STREAM)
                self._listeners.append(_Listener(loop, listener, responder))
        except VpntunError:
            self.close()
            raise

    def close(self) -> None:
        """Close all sockets and connections."""
        for each in self._open:
            self._loop.forget(each.fileno())
            each.close()
        for listener in self._listeners:
            listener.close()
        self._responder.close()

    def _open_datagrams(self, new: socket.socket) -> None:
        self._open.append(new)
        self._loop.watch(new.fileno(), lambda: self._read(new))

    def _read(self, used: socket.socket) -> None:
        """Take the datagrams that wait, but not so many that packets of the tunnel wait for long."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, asker = used.recvfrom(LARGEST_QUESTION + 1)
            except OSError:
                return
            self._responder.take(data, packed(asker), partial(_send, used, asker), is_stream=False)


class _Listener:
    """A listening socket and its connections."""

    def __init__(self, loop: Loop, listener: socket.socket, responder: Responder) -> None:
        self._loop = loop
        self._socket = listener
        self._responder = responder
        self._source = b""
        self._clients = Clients(
            "the name server", loop, self._new_exchange, most=MOST_CONNECTIONS, seconds_idle=SECONDS_IDLE
        )
        loop.watch(listener.fileno(), self._accept)

    def close(self) -> None:
        self._clients.close()
        self._loop.forget(self._socket.fileno())
        self._socket.close()

    def _accept(self) -> None:
        accepted = self._loop.accept(self._socket)
        if accepted is not None:
            new, address = accepted
            self._source = packed(address)
            self._clients.admit(new, written(address[:2]))

    def _new_exchange(self) -> NameExchange:
        """Return the exchange of the connection that was just accepted."""
        source = self._source
        return NameExchange(
            lambda data, deliver: self._responder.take(data, source, deliver, is_stream=True), self._clients.go_on
        )


def _send(used: socket.socket, asker: SocketAddress, answer: bytes) -> None:
    """Send an answer. If that fails, it is as if it were lost on the way; the socket may be closed by now."""
    with suppress(OSError):
        used.sendto(answer, asker)


def _bound(device: str, address: IpAddress, port: int, kind: int) -> socket.socket:
    """Return a socket bound to a device and to an address of it. Raises PortInUse, PrivilegeError or VpntunError."""
    where = written((str(address), port))
    try:
        new = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, kind | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise VpntunError(f"the name server cannot be opened: {error.strerror}") from error
    try:
        bind_to_device(new, device)
        new = accept_only_from(new, device)
        new.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        return bound(new, str(address), port, backlog=MOST_CONNECTIONS, takes_ipv4=True)
    except OSError as error:
        new.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"{where} is in use: stop the name server that listens there, or on all addresses (it may have a "
                "setting such as bind-interfaces), or leave out DnsServer"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PrivilegeError(
                f"no right to listen on {where} for DnsServer: start as root, or with CAP_NET_BIND_SERVICE; after "
                "privileges were given up, restart the tunnel"
            ) from error
        raise VpntunError(f"the name server cannot listen on {where}: {os.strerror(error.errno or 0)}") from error
