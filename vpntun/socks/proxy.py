"""SOCKS5 proxy (RFC 1928): its listener, its clients, and their limits.

    clients          everybody who reaches the listener: no password is asked for
    number           limited as that of a forward's connections (forwards/connections.py); more are reset, and logged
    commands         CONNECT and UDP ASSOCIATE; not BIND, and at a unix socket no UDP ASSOCIATE
    names            looked up on the other side of the tunnel, where all connections and datagrams leave
    other protocols  closed at the first byte, so that no web page can use the proxy by HTTP

Each program of this machine reaches a port of the loopback. A unix socket is open to this process's user alone.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from logging import INFO
from pathlib import Path
from typing import Any

from vpntun.config.forwards import spelled
from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.relay import reset
from vpntun.forwards.side import Side
from vpntun.runtime.log import NOTICE, Limited, log
from vpntun.runtime.loop import Loop
from vpntun.serving.listener import Listener
from vpntun.socks.session import Session
from vpntun.types import Place

OPTION = "--socks5"
MOST_WAITING_TO_BE_ACCEPTED = 1024
MOST_LINES = 5
"""Lines of the log about failures of clients in ten seconds."""


class Socks5Proxy:
    """A proxy that listens at a place of this machine. `side`: where its clients' connections and datagrams leave.

    `connections`: those of all forwards of the tunnel, among which the clients count.
    """

    def __init__(self, loop: Loop, place: Path | Place, side: Side, connections: Connections) -> None:
        """Listen, and serve clients from now on. Raises PortInUse, PrivilegeError or VpntunError."""
        self._loop = loop
        self._place = place
        self._side = side
        self._connections = connections
        self._sessions: set[Session] = set()
        self._counted = Counters()
        self._failed = Limited(INFO, "a client of the SOCKS5 proxy %s", most=MOST_LINES)
        self._full = Limited(NOTICE, "refused: there is no room for another client of the SOCKS5 proxy")
        self._listener = Listener("the SOCKS5 proxy", place, option=OPTION, backlog=MOST_WAITING_TO_BE_ACCEPTED)
        loop.watch(self._listener.socket.fileno(), self._accept)
        if not isinstance(place, Path) and not (place[0] and ip_address(place[0]).is_loopback):
            log.warning(
                "everybody who reaches %s can use the tunnel: the SOCKS5 proxy asks for no password", spelled(place)
            )

    def status(self) -> dict[str, Any]:
        """Return the fields of the status. Bytes are counted as they are passed on, in either direction."""
        now = self._counters
        return {
            "listen": spelled(self._place),
            "connections": now.connections,
            "connections_total": now.total,
            "connections_refused": now.refused,
            "connections_failed": now.failed,
            "sent_bytes": now.sent,
            "received_bytes": now.received,
            "last_failure": now.last_failure or None,
        }

    def close(self) -> None:
        """Stop listening, and end all that clients have asked for."""
        self._loop.forget(self._listener.socket.fileno())
        self._listener.close()
        for session in list(self._sessions):
            session.close()

    @property
    def _counters(self) -> Counters:
        now = replace(self._counted)
        for session in self._sessions:
            now.sent += session.sent
            now.received += session.received
        return now

    def _accept(self) -> None:
        accepted = self._loop.accept(self._listener.socket)
        if accepted is None:
            return
        client, _ = accepted
        if not self._connections.admit(self._counted):
            self._full()
            reset(client)
            return
        client.setblocking(False)
        self._sessions.add(Session(self._loop, client, self._side, self._connections, self._session_ended))

    def _session_ended(self, session: Session) -> None:
        self._sessions.remove(session)
        self._connections.dismiss(self._counted)
        self._counted.sent += session.sent
        self._counted.received += session.received
        if session.failure is not None:
            self._counted.failed += 1
            self._counted.last_failure = session.failure
            self._failed(session.failure)
