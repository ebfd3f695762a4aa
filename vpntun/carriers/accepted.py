"""Limits on accepted TCP connections: how many may stay open, and for how long.

stranger         A connection on which no message was authenticated yet. One network (an IPv4 address, or an IPv6 /64)
                 may have 16 of them, and all networks together 256. A new one is always admitted. At a limit, the
                 oldest silent one is closed: one of the same network if that has 16, else one of the network with the
                 most silent ones.
expected         A stranger on which the node accepted a peer's initiation, which may still be a replay. Expected ones
                 are closed only after all silent ones. A peer is expected on one connection only, the newest.
authenticated    A connection of a peer. A peer may have two besides its endpoint; a third closes the oldest.
probation        The ten seconds after a connection was accepted, and again after it was authenticated. At their end
                 it is closed unless it is its peer's endpoint. No message extends them.

No state of a closed connection is kept.
"""

from __future__ import annotations

import itertools
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator

from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.endpoint import Reachable
from vpntun.core.source_limits import network_of
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress
from vpntun.wire.message import Buffer
from vpntun.wire.stream_framing import SharedBuffer, fits_none

MOST_STRANGERS = 256
MOST_STRANGERS_PER_NETWORK = 16
MOST_BESIDE_ENDPOINT = 2
SECONDS_OF_PROBATION = 10.0

Connections = dict[Stream, None]
"""A set, oldest first."""


class AcceptedConnections(ConnectionOwner):
    """Owner of every accepted connection.

    Calls `on_ready` when a connection accepts data again, and `on_closed` when one closes. `fits_session`: whether the
    header of a data message fits a live session.
    """

    def __init__(
        self,
        loop: Loop,
        received: SharedBuffer,
        on_ready: Callable[[Stream], None],
        on_closed: Callable[[Stream], None],
        fits_session: Callable[[Buffer], bool] = fits_none,
    ) -> None:
        self._loop = loop
        self._fits_session = fits_session
        self._received = received
        self._on_ready = on_ready
        self._on_closed = on_closed
        self._silent = _ByNetwork()
        self._expected = _ByNetwork()
        self._expected_of: dict[Reachable, Stream] = {}
        self._authenticated_of: dict[Reachable, Connections] = {}
        self._on_probation: OrderedDict[Stream, float] = OrderedDict()
        self._timer_is_set = False

    def admit(self, new: socket.socket, address: SocketAddress) -> TcpConnection:
        """Admit an accepted socket. The loop must watch the connection before the next one is admitted."""
        self._make_room(_network_of(address[0]))
        connection = TcpConnection(new, address, self._loop, self, self._received, self._fits_session)
        self._silent.add(connection)
        self._begin_probation(connection)
        return connection

    def close_all_of(self, peer: Reachable) -> None:
        """Close every connection on which the peer was authenticated."""
        for connection in list(self._authenticated_of.get(peer, ())):
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        for connection in [*self._silent, *self._expected, *itertools.chain(*self._authenticated_of.values())]:
            connection.close()

    def expected(self, connection: Stream, peer: Reachable) -> None:
        """Prefer a stranger on which the node accepted an initiation of the peer."""
        self._silent.discard(connection)
        self._expected.add(connection)
        former = self._expected_of.get(peer)
        self._expected_of[peer] = connection
        if former is not None:
            former.close()

    def authenticated(self, connection: Stream, peer: Reachable) -> None:
        """Move a stranger to its peer's connections."""
        self._forget_stranger(connection)
        connections = self._authenticated_of.setdefault(peer, {})
        connections[connection] = None
        self._begin_probation(connection)
        beside = [each for each in connections if not each.is_endpoint]
        if len(beside) > MOST_BESIDE_ENDPOINT:
            beside[0].close()

    def ready(self, connection: Stream) -> None:
        """Have the connection's queue drained."""
        self._on_ready(connection)

    def closed(self, connection: Stream) -> None:
        """Forget a connection."""
        self._on_probation.pop(connection, None)
        self._forget_stranger(connection)
        if connection.peer is not None:
            connections = self._authenticated_of[connection.peer]
            del connections[connection]
            if not connections:
                del self._authenticated_of[connection.peer]
        self._on_closed(connection)

    def _make_room(self, network: bytes) -> None:
        """Close one stranger if another from `network` would exceed a limit."""
        if len(self._silent.of(network)) + len(self._expected.of(network)) >= MOST_STRANGERS_PER_NETWORK:
            candidates = self._silent.of(network) or self._expected.of(network)
        elif len(self._silent) + len(self._expected) >= MOST_STRANGERS:
            candidates = self._silent.of_fullest() or self._expected.of_fullest()
        else:
            return
        next(iter(candidates)).close()

    def _forget_stranger(self, connection: Stream) -> None:
        self._silent.discard(connection)
        self._expected.discard(connection)
        peer = connection.expected_peer
        if peer is not None and self._expected_of.get(peer) is connection:
            del self._expected_of[peer]

    def _begin_probation(self, connection: Stream) -> None:
        self._on_probation[connection] = self._loop.now + SECONDS_OF_PROBATION
        self._on_probation.move_to_end(connection)
        self._set_timer()

    def _set_timer(self) -> None:
        """Run one timer, for the connection whose probation ends first."""
        if self._on_probation and not self._timer_is_set:
            self._timer_is_set = True
            earliest = next(iter(self._on_probation.values()))
            self._loop.call_later(earliest - self._loop.now, self._end_probations)

    def _end_probations(self) -> None:
        self._timer_is_set = False
        try:
            while self._on_probation:
                connection, end = next(iter(self._on_probation.items()))
                if end > self._loop.now:
                    break
                del self._on_probation[connection]
                if not connection.is_endpoint:
                    connection.close()
        finally:
            self._set_timer()


class _ByNetwork:
    """Connections grouped by the network that they come from."""

    def __init__(self) -> None:
        self._networks: dict[bytes, Connections] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Stream]:
        return itertools.chain(*self._networks.values())

    def of(self, network: bytes) -> Connections:
        """Return the connections from one network."""
        return self._networks.get(network, {})

    def of_fullest(self) -> Connections:
        """Return the connections from the network that has the most."""
        return max(self._networks.values(), key=len, default={})

    def add(self, connection: Stream) -> None:
        """Add a connection that was not added before."""
        self._networks.setdefault(_network_of(connection.host), {})[connection] = None
        self._count += 1

    def discard(self, connection: Stream) -> None:
        """Remove a connection if it was added."""
        network = _network_of(connection.host)
        connections = self.of(network)
        if connection in connections:
            self._count -= 1
            del connections[connection]
            if not connections:
                del self._networks[network]


def _network_of(host: str) -> bytes:
    return network_of(socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host))
