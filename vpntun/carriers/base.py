"""Protocols between the engine and the carriers.

A carrier transports messages to and from peers, over datagrams (udp.py) or over connections (tcp.py). It owns its
sockets, watches them, and makes the endpoints that links send to (core/endpoint.py). opening.py names every carrier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Protocol, TypeAlias

from vpntun.core.endpoint import Endpoint, Outcome, Reachable
from vpntun.types import SocketAddress
from vpntun.wire.message import Buffer

Arrival: TypeAlias = tuple[memoryview, int, int, Endpoint, int]
"""One read of datagrams: its bytes, the segment size, the number of datagrams that it arrived in, the sender, and the
ECN field of their IP headers, which is the same in all.

If the segment size is 0, the bytes are one message; else they are datagrams of that size, and the last may be shorter.
They are valid until the next read.
"""


class DatagramSource(Protocol):
    """A socket that receives datagrams. The reader reports messages that opened, which makes the next reads cheaper."""

    def receive(self) -> Iterable[Arrival]:
        """Return waiting datagrams, by a bounded number of reads."""

    def expect_bursts(self, size: int) -> None:
        """Note that a burst of datagrams of `size` bytes was read as one, and opened."""

    def expect_pieces(self, size: int) -> None:
        """Note that a record in datagrams of `size` bytes was completed by a piece that was read alone."""

    def note_whole_message(self, size: int, datagrams: int) -> None:
        """Note that a message of `size` bytes, read in this number of datagrams, opened."""


class Stream(Endpoint, Protocol):
    """A connection, which is its own endpoint."""

    @property
    def peer(self) -> Reachable | None:
        """The peer that was authenticated on the connection; no other peer may send on it."""

    @property
    def expected_peer(self) -> Reachable | None:
        """The peer whose initiation was accepted on the connection; the initiation may be a replay."""

    @property
    def is_endpoint(self) -> bool:
        """Whether the connection is its peer's current endpoint."""

    @property
    def host(self) -> str:
        """The other end's address, without the port."""

    def receive(self) -> Iterable[memoryview]:
        """Yield the messages that have arrived, each valid until the next. Raises BadPacket for an impossible frame."""

    def close(self) -> None:
        """Close the connection, once."""


class ConnectionOwner:
    """Owner of connections, which is called at their events. A subclass overrides the events that it needs."""

    def dial_failed(self, error: OSError) -> None:
        """Note why a connection could not be opened, right before `on_done` of Carrier.dial is called with None."""

    def expected(self, connection: Stream, peer: Reachable) -> None:
        """Note that the connection's first initiation was accepted. The peer made it, but it may be a replay."""

    def authenticated(self, connection: Stream, peer: Reachable) -> None:
        """Note that the connection belongs to the peer now."""

    def ready(self, connection: Stream) -> None:
        """Note that the connection accepts data again."""

    def closed(self, connection: Stream) -> None:
        """Note that the connection has closed. No other event follows."""


class CarrierUser(Protocol):
    """Calls of a carrier to the engine."""

    def read_datagrams(self, source: DatagramSource) -> None:
        """Process the datagrams that wait at a socket."""

    def read_stream(self, connection: Stream) -> None:
        """Process the messages that wait at a connection."""

    def can_send(self, peer: Reachable | None) -> None:
        """Note that data can be sent again to a peer; None: to every peer on this carrier."""

    def held_sent(self, endpoint: Endpoint, outcome: Outcome, datagrams: int, size: int) -> None:
        """Note that held datagrams, of which the longest has `size` bytes, were refused or rerouted in the end."""

    def fits_session(self, header: Buffer) -> bool:
        """Return whether the 16 bytes of a data message's header name a live session and a counter not seen in it."""

    def connection_closed(self, connection: Stream, peer: Reachable) -> None:
        """Note that a connection which a peer had opened has closed."""


class Carrier(Protocol):
    """One carrier of a tunnel."""

    @property
    def can_call(self) -> bool:
        """Whether `candidate` can return endpoints."""

    @property
    def port(self) -> int:
        """The local port of its sockets; 0 without any, or if each connection has its own."""

    def start(self, user: CarrierUser) -> None:
        """Watch the sockets from now on, and hand arriving messages to `user`."""

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return the endpoint of an address, as a candidate to ask or to dial; None if this carrier dials connections.

        Also None where this host lacks the address's IP version.
        """

    def renew(self, in_use: Iterable[Endpoint]) -> bool:
        """Give later candidates a fresh local port; return whether one was opened.

        Endpoints in use keep their ports. Earlier candidates must be made again.
        """

    def dial(self, candidate: Endpoint, owner: ConnectionOwner, on_done: Callable[[Stream | None], None]) -> None:
        """Open a connection to the address of a candidate, from the source address that the candidate sends from.

        `on_done` is called once, with the connection, or with None on failure, unless the dial is given up before.
        """

    def give_up_dials(self, owner: ConnectionOwner) -> None:
        """Give up the connections that are being opened for an owner."""

    def prepare_port(self, port: int, stack: ExitStack, *, can_be_called: bool) -> Callable[[], None]:
        """Open sockets on a local port, 0 for any, where there are none yet; return the function that changes to them.

        `stack` closes them if they are not wanted after all. `can_be_called`: whether peers may call there. Endpoints
        that were made before the change must be made again. Raises PortInUse, PrivilegeError or VpntunError.
        """

    def set_mark(self, mark: int) -> None:
        """Give every packet that leaves from now on this mark, 0 for none. Raises PrivilegeError."""

    def close_all_of(self, peer: Reachable) -> None:
        """Close every connection that this peer has opened."""

    def close(self) -> None:
        """Close the sockets."""
