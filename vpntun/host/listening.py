"""Where TCP connections come in."""

from __future__ import annotations

import socket

from vpntun.host.accepted import AcceptedConnections
from vpntun.host.loop import Loop
from vpntun.host.tcp import TcpConnection
from vpntun.host.udp import bind, marked

MOST_WAITING_TO_BE_ACCEPTED = 1024
MOST_ACCEPTED_PER_TURN = 16
"""Calls of `accept` in one turn of the loop: the listener stays readable, and others have their turn."""


class TcpListener:
    """Accepts connections on one port and IP version.

    `mark`: what all that they send carries for this host's routing rules, 0 for nothing.
    """

    def __init__(self, family: int, port: int, mark: int = 0) -> None:
        new = marked(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), mark)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket = bind(new, port, "TCP")
        self._socket.listen(MOST_WAITING_TO_BE_ACCEPTED)

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def accept(self, loop: Loop, connections: AcceptedConnections) -> TcpConnection | None:
        """Admit the connection that waits to `connections`; None if none waits, or there is no room for it."""
        accepted = loop.accept(self._socket)
        return None if accepted is None else connections.admit(*accepted)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
