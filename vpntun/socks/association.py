"""UDP association: passes a client's datagrams on by the other side of the tunnel until the client disconnects.

1. The client sends its datagrams to a port that it has for itself, at the address where it has reached the proxy.
   Datagrams from other addresses are dropped, and after the first one those from other ports, too.
2. The header of a datagram names its destination. Names are looked up on the other side, a few at a time; datagrams for
   such a name wait meanwhile, up to a limit of this client, and to one of all together.
3. The datagram leaves by a socket of the other side. There is one for each IP version, opened on demand.
4. Datagrams that arrive at these sockets go to the client, behind a header with their sender. They may come from
   anybody, as those to a program inside the tunnel.

Malformed datagrams, fragments, and datagrams that cannot be sent or kept are dropped, as a network may drop any.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import IPv6Address, ip_address

from vpntun.errors import BadPacket
from vpntun.forwards.connections import WaitingRoom
from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found
from vpntun.socks.messages import Datagram
from vpntun.types import NEVER, Place, SocketAddress

LARGEST = 65535
MOST_PER_TURN = 32
MOST_LOOK_UPS = 16
MOST_WAITING_BYTES = 65536
MOST_NAMES = 256
SECONDS_OF_A_NAME = 60.0
"""How long the addresses of a name are used."""
_OWN_SIZE = 256
"""Bytes that a waiting datagram takes beside its data, about."""


class Association:
    """A socket for one client's datagrams, and up to two on the other side of the tunnel."""

    def __init__(self, loop: Loop, control: socket.socket, side: Side, room: WaitingRoom) -> None:
        """Open the socket for the client that is connected by `control`. Raises OSError.

        `room`: for datagrams that wait.
        """
        self._loop = loop
        self._side = side
        self._room = room
        self._near, self._client_host = _bound_beside(control)
        self._client: SocketAddress | None = None
        self._far: dict[int, socket.socket] = {}
        self._names: dict[Place, tuple[Found, float]] = {}
        self._waiting: dict[Place, list[bytes]] = {}
        self._waiting_bytes = 0
        self._is_open = True
        self.sent = self.received = 0
        """Bytes of data passed on from the client, and to it."""
        loop.watch(self._near.fileno(), partial(_read_some, self._take_from_client))

    @property
    def place(self) -> Place:
        """Where the client has to send its datagrams."""
        host, port = self._near.getsockname()[:2]
        return host, port

    def close(self) -> None:
        """Close the sockets. An answer to a look-up that comes later is ignored."""
        if self._is_open:
            self._is_open = False
            for each in (self._near, *self._far.values()):
                self._loop.forget(each.fileno())
                each.close()
            self._waiting.clear()
            self._room.give_back(self._waiting_bytes)

    def _take_from_client(self) -> None:
        """Take one datagram. Raises BlockingIOError when there is none."""
        message, sender = self._near.recvfrom(LARGEST)
        if sender[0] != self._client_host or (self._client is not None and sender != self._client):
            return
        try:
            datagram = Datagram.parse(message)
        except BadPacket:
            return
        self._client = sender
        self._pass_on(datagram)

    def _pass_on(self, datagram: Datagram) -> None:
        place, data = datagram.place, datagram.data
        found, until = self._names.get(place, ([], -NEVER))
        if literal := _literal(place):
            self._send([literal], data)
        elif self._loop.now < until:
            self._send(found, data)
        else:
            self._look_up(place, data)

    def _look_up(self, place: Place, data: bytes) -> None:
        """Keep a datagram until the addresses of a name are known, and ask for them unless they are asked for."""
        size = len(data) + _OWN_SIZE
        is_new = place not in self._waiting
        if (is_new and len(self._waiting) >= MOST_LOOK_UPS) or self._waiting_bytes + size > MOST_WAITING_BYTES:
            return
        if not self._room.take(size):
            return
        self._waiting_bytes += size
        self._waiting.setdefault(place, []).append(data)
        if is_new:
            self._side.look_up(*place, partial(self._answered, place))

    def _answered(self, place: Place, found: Found, error: Exception | None) -> None:
        if not self._is_open:
            return
        waiting = self._waiting.pop(place)
        size = sum(len(data) + _OWN_SIZE for data in waiting)
        self._waiting_bytes -= size
        self._room.give_back(size)
        if found:
            self._names.pop(place, None)
            while len(self._names) >= MOST_NAMES:
                del self._names[next(iter(self._names))]
            self._names[place] = found, self._loop.now + SECONDS_OF_A_NAME
        for data in waiting:
            self._send(found, data)

    def _send(self, found: Found, data: bytes) -> None:
        """Send data to the first of these addresses that it can be sent to."""
        for family, address in found:
            with suppress(OSError):
                self._far_socket(family).sendto(data, address)
                self.sent += len(data)
                return

    def _far_socket(self, family: int) -> socket.socket:
        """Return the socket of an IP version on the other side. Raises OSError."""
        far = self._far.get(family)
        if far is None:
            far = self._far[family] = self._side.open(family, socket.SOCK_DGRAM)
            self._loop.watch(far.fileno(), partial(_read_some, partial(self._take_from_far, far)))
        return far

    def _take_from_far(self, far: socket.socket) -> None:
        """Pass one datagram on to the client. Raises BlockingIOError when there is none."""
        data, sender = far.recvfrom(LARGEST)
        assert self._client is not None  # the socket was opened for a datagram of the client
        with suppress(OSError):
            self._near.sendto(Datagram(sender[:2], data).pack(), self._client)
            self.received += len(data)


def _bound_beside(control: socket.socket) -> tuple[socket.socket, str]:
    """Return a datagram socket bound to the address that a client is connected to, and the client's own address.

    A client whose IPv4 connection has reached an IPv6 socket sends its datagrams by IPv4. Raises OSError.
    """
    own, client = control.getsockname(), control.getpeername()
    own_v4, client_v4 = (IPv6Address(each[0]).ipv4_mapped if ":" in each[0] else None for each in (own, client))
    is_mapped = own_v4 is not None and client_v4 is not None
    near = socket.socket(
        socket.AF_INET if is_mapped else control.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        near.bind((str(own_v4), 0) if is_mapped else (own[0], 0, *own[2:]))
    except OSError:
        near.close()
        raise
    return near, str(client_v4) if is_mapped else client[0]


def _literal(place: Place) -> tuple[socket.AddressFamily, SocketAddress] | None:
    """Return an address that needs no look-up; None for a name, and for an address with a zone."""
    try:
        version = ip_address(place[0]).version
    except ValueError:
        return None
    return (socket.AF_INET if version == 4 else socket.AF_INET6, place) if "%" not in place[0] else None


def _read_some(take: Callable[[], None]) -> None:
    """Call `take` until there is nothing more, or this turn's share is used up."""
    with suppress(OSError):
        for _ in range(MOST_PER_TURN):
            take()
