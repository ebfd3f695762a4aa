"""SOCKS5 proxy (RFC 1928): a listener, its sessions, and their limits.

    who may use it    everybody who reaches the listener: no client is asked for a password
    how many at once  MOST_SESSIONS; one more is reset, and a line of the log says so
    commands          CONNECT and UDP ASSOCIATE; not BIND, and at a unix socket no UDP ASSOCIATE
    names             looked up on the other side of the tunnel, like everything that a session needs
    other protocols   closed at the first byte, so that no web page can use the proxy by HTTP

At the loopback each program of this machine is a client. A unix socket is open to this process's user alone.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from functools import partial
from logging import INFO
from typing import Any

from vpntun.forwards.pipes import PipePool
from vpntun.forwards.relay import reset_at_close
from vpntun.forwards.side import Side
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.socks.session import Session

MOST_SESSIONS = 1024
MOST_LINES = 5
"""Lines of the log about failures of clients in ten seconds."""


class Socks5Proxy:
    """A proxy whose clients reach the other side of the tunnel."""

    def __init__(
        self, loop: Loop, listeners: Sequence[socket.socket], side: Side, pipes: PipePool, *, where: str
    ) -> None:
        """Serve the clients of these listeners, which are the proxy's from now on. `where`: where they listen."""
        self._loop = loop
        self._listeners = listeners
        self._side = side
        self._pipes = pipes
        self._where = where
        self._sessions: set[Session] = set()
        self._served = self._failed = self._refused = self._sent = self._received = 0
        self._note_failure = Limited(INFO, "a client of the SOCKS5 proxy %s", most=MOST_LINES)
        self._note_refusal = Limited(NOTICE, "the SOCKS5 proxy serves %d clients, and refuses more")
        for each in listeners:
            loop.watch(each.fileno(), partial(self._accept, each))

    def status(self) -> dict[str, Any]:
        """Return the fields of the status. Bytes are counted as they are passed on, in either direction."""
        return {
            "listen": self._where,
            "connections": len(self._sessions),
            "connections_total": self._served,
            "connections_failed": self._failed,
            "connections_refused": self._refused,
            "sent_bytes": self._sent + sum(each.sent for each in self._sessions),
            "received_bytes": self._received + sum(each.received for each in self._sessions),
        }

    def close(self) -> None:
        """Close the listeners, and all that clients are connected to."""
        for each in self._listeners:
            self._loop.forget(each.fileno())
            each.close()
        for session in list(self._sessions):
            session.close()

    def _accept(self, listener: socket.socket) -> None:
        accepted = self._loop.accept(listener)
        if accepted is None:
            return
        client, _ = accepted
        if len(self._sessions) >= MOST_SESSIONS:
            self._refused += 1
            self._note_refusal(MOST_SESSIONS)
            reset_at_close(client)
            client.close()
            return
        client.setblocking(False)
        self._served += 1
        self._sessions.add(Session(self._loop, client, self._side, self._pipes, self._ended))

    def _ended(self, session: Session) -> None:
        self._sessions.remove(session)
        self._sent += session.sent
        self._received += session.received
        if session.failure is not None:
            self._failed += 1
            self._note_failure(session.failure)
