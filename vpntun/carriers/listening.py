"""Listening TCP socket of one IP version."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.sockets import bind, marked, set_mark
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.runtime.loop import Loop

MOST_WAITING_TO_BE_ACCEPTED = 1024
MOST_ACCEPTED_PER_TURN = 16
"""Connections accepted before the loop serves other descriptors."""


class TcpListener:
    """Listener on one port and IP version.

    `mark`: the mark of every packet that the accepted connections send, for this host's routing rules; 0 for none.
    """

    def __init__(self, family: int, port: int, mark: int = 0) -> None:
        new = marked(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), mark)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket = bind(new, port, "TCP")
        self._socket.listen(MOST_WAITING_TO_BE_ACCEPTED)

    def set_mark(self, mark: int) -> None:
        """Give the connections that are accepted from now on this mark. Raises PrivilegeError."""
        set_mark(self._socket, mark)

    def fileno(self) -> int:
        """Return the descriptor, for the loop."""
        return self._socket.fileno()

    def accept(self, loop: Loop, connections: AcceptedConnections) -> Iterator[TcpConnection]:
        """Accept up to 16 waiting connections into `connections`. The caller watches each before it takes the next."""
        for _ in range(MOST_ACCEPTED_PER_TURN):
            accepted = loop.accept(self._socket)
            if accepted is None:
                return
            yield connections.admit(*accepted)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
