"""Where TCP connections come in, and how many of strangers may.

Whoever has not been authenticated is a stranger. They hold at most 16 connections an address (or IPv6 /64), and 256 in
all; one more is closed at once.
"""

from __future__ import annotations

import ipaddress
import socket

from vpntun.host.loop import Loop
from vpntun.host.tcp import TcpConnection
from vpntun.host.udp import bind, marked

MOST_STRANGERS = 256
MOST_STRANGERS_PER_ADDRESS = 16


class TcpListener:
    """Accepts connections on one port and IP version, as many of strangers as the caps allow.

    `mark`: what all that they send carries for this host's routing rules, 0 for nothing.
    """

    def __init__(self, family: int, port: int, strangers: Strangers, mark: int = 0) -> None:
        new = marked(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), mark)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket = bind(new, port, "TCP")
        self._socket.listen(128)
        self._strangers = strangers

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def accept(self, loop: Loop) -> TcpConnection | None:
        """The connection that waits, or None: there is none, or its address has too many already."""
        accepted = loop.accept(self._socket)
        if accepted is None:
            return None
        new, address = accepted
        connection = TcpConnection(new, address, loop)
        if not self._strangers.admit(connection):
            new.close()
            return None
        return connection

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class Strangers:
    """The accepted connections that have not authenticated: how many there are, in all and of each address."""

    def __init__(self) -> None:
        self._connections: dict[str, list[TcpConnection]] = {}

    def admit(self, connection: TcpConnection) -> bool:
        """Count the connection in, unless there are too many."""
        for network in list(self._connections):
            left = [each for each in self._connections[network] if each.peer is None and each.fileno() >= 0]
            self._connections[network] = left
            if not left:
                del self._connections[network]
        network = _network_of(connection.host)
        mine = self._connections.get(network, [])
        if len(mine) >= MOST_STRANGERS_PER_ADDRESS or sum(map(len, self._connections.values())) >= MOST_STRANGERS:
            return False
        self._connections[network] = [*mine, connection]
        return True


def _network_of(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 4:
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
