"""All connections that the forwards of a tunnel pass on: how many there may be, and their relays.

A connection takes two descriptors, and up to two pipes while its ends take no more. So their number is limited by that
of the descriptors that this process may have, and the flows of datagrams count as connections. The datagrams of all
flows that wait for the address of their target share MOST_WAITING_BYTES.
"""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass

from vpntun.forwards.pipes import PipePool
from vpntun.forwards.relay import Relay
from vpntun.runtime.folders import SO_NETNS_COOKIE
from vpntun.runtime.loop import Loop
from vpntun.types import SocketAddress

MOST_CONNECTIONS = 4096
MOST_OF_ONE_FORWARD = 1024
DESCRIPTORS_OF_OTHERS = 256
DESCRIPTORS_OF_A_CONNECTION = 6
MOST_WAITING_BYTES = 4 * 1024 * 1024
SIZE_OF_COOKIE = 8
MAPPED = "::ffff:"
"""Beginning of an IPv4 address at a socket for both IP versions."""


@dataclass
class Counters:
    """What one forward has done. `connections`: those of now, or flows; `sent`: bytes from the clients to the target.

    refused    connections that found no room
    failed     connections whose target could not be reached; `last_failure` says why the last one could not
    """

    connections: int = 0
    total: int = 0
    refused: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    last_failure: str = ""

    def note_failure(self, error: OSError) -> str:
        """Count a connection whose target could not be reached, and return the reason."""
        self.failed += 1
        self.last_failure = error.strerror or str(error)
        return self.last_failure


class WaitingRoom:
    """Room for datagrams that wait. Whoever has taken some gives it back."""

    def __init__(self, most: int = MOST_WAITING_BYTES) -> None:
        self._left = most

    def take(self, size: int) -> bool:
        """Take room for so many bytes; return whether there was as much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Give back what was taken for so many bytes."""
        self._left += size


class OwnAddresses:
    """Addresses of the sockets by which flows reach their targets. A datagram that comes from one goes in a circle.

    The same address may belong to another program in another network namespace. Before Linux 5.14 namespaces cannot be
    told apart, and no circle is found.
    """

    def __init__(self) -> None:
        self._all: set[tuple[bytes, str, int]] = set()

    def add(self, connected: socket.socket) -> None:
        """Add the address of a socket."""
        self._all.update(_named(connected, connected.getsockname()))

    def remove(self, connected: socket.socket) -> None:
        """Remove the address of a socket, before it is closed."""
        self._all.difference_update(_named(connected, connected.getsockname()))

    def have_sent(self, listener: socket.socket, sender: SocketAddress) -> bool:
        """Whether what a socket has received came from one of them."""
        return any(each in self._all for each in _named(listener, sender))


class Connections:
    """Relayed connections of all forwards. `most`: None for as many as this process has descriptors for.

    `waiting`: room for the datagrams that wait, of all forwards together. `own`: addresses of all flows' sockets.
    """

    def __init__(self, loop: Loop, most: int | None = None) -> None:
        self._loop = loop
        self._most = most_connections() if most is None else most
        self.waiting = WaitingRoom()
        self.own = OwnAddresses()
        self._admitted = 0
        self._pipes = PipePool()
        self._relays: set[Relay] = set()

    def have_room_for(self, counters: Counters) -> bool:
        """Whether this forward may have another connection."""
        return self._admitted < self._most and counters.connections < MOST_OF_ONE_FORWARD

    def admit(self, counters: Counters) -> bool:
        """Count a new connection of a forward, or refuse it for want of room."""
        if not self.have_room_for(counters):
            counters.refused += 1
            return False
        self._admitted += 1
        counters.connections += 1
        counters.total += 1
        return True

    def dismiss(self, counters: Counters) -> None:
        """Count an admitted connection as ended."""
        self._admitted -= 1
        counters.connections -= 1

    def relay(self, near: socket.socket, far: socket.socket, on_end: Callable[[Relay], None]) -> Relay:
        """Pass an admitted connection on until it ends. The caller dismisses it then. Raises OSError."""

        def ended(relay: Relay) -> None:
            self._relays.discard(relay)
            on_end(relay)

        new = Relay(self._loop, near, far, self._pipes, ended)
        self._relays.add(new)
        return new

    def close(self) -> None:
        """Reset all connections; nobody is called back."""
        while self._relays:
            self._relays.pop().close()
        self._pipes.close()


def _named(at: socket.socket, address: SocketAddress) -> list[tuple[bytes, str, int]]:
    """Return an address with the namespace of the socket that has it, or has received it; nothing if it is unknown."""
    try:
        namespace = at.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, SIZE_OF_COOKIE)
    except OSError:
        return []
    return [(namespace, address[0].removeprefix(MAPPED), address[1])]


def most_connections() -> int:
    """Return how many connections this process has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, (soft - DESCRIPTORS_OF_OTHERS) // DESCRIPTORS_OF_A_CONNECTION))
