"""Endpoints, where a peer is reached: a UDP address, or one TCP connection.

The carriers make them (carriers/udp.py, carriers/tcp.py), and carriers/fake.py has one for tests. All other code knows
them by this protocol.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from typing import NamedTuple, Protocol

from vpntun.types import CarrierName, SocketAddress
from vpntun.wire.message import Buffer


class Outcome(enum.Enum):
    """Result of a send. REROUTED: sent or held, but from another address, because this host has lost the former one."""

    SENT = enum.auto()
    HELD = enum.auto()
    REROUTED = enum.auto()
    TOO_BIG = enum.auto()
    UNDELIVERABLE = enum.auto()


class Flow(NamedTuple):
    """Addresses and ports of the packets that an endpoint sends, by which this host's routes tell them apart.

    `source`: empty if the kernel chooses it. `scope`: the device's number if the address is link-local.
    """

    protocol: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    scope: int = 0

    @property
    def ports(self) -> tuple[int, int, int]:
        """Protocol number, source port and destination port."""
        return self.protocol, self.source_port, self.destination_port


class Reachable(Protocol):
    """The part of a peer that endpoints need."""

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the peer is reached now."""


class Endpoint(Protocol):
    """Place where a peer is reached. Endpoints are compared by equality; `str` is for the log."""

    @property
    def carrier(self) -> CarrierName:
        """The carrier used to reach it."""

    @property
    def is_stream(self) -> bool:
        """Whether messages of any length arrive complete and in order, so that no record is cut into datagrams."""

    @property
    def address(self) -> SocketAddress:
        """The other end's address and port, as the socket module takes them."""

    @property
    def origin(self) -> bytes:
        """The other end's address (4 or 16 bytes) and port (2 bytes, big endian): what a cookie is made for."""

    @property
    def via(self) -> Hashable:
        """A value that identifies the local port. The other end's cookies hold for one port."""

    @property
    def is_open(self) -> bool:
        """Whether messages can still be exchanged: not once a connection is closed, and always over UDP."""

    @property
    def where(self) -> str:
        """The other end's address and port for people, as in 203.0.113.2:55555 and [fe80::2%eth0]:55555."""

    @property
    def ipv6(self) -> bool:
        """Whether packets go there over IPv6."""

    @property
    def flow(self) -> Flow:
        """Addresses and ports of the packets sent there."""

    def __hash__(self) -> int:
        """Return the same hash for equal endpoints."""

    def send_from(self, source: bytes) -> None:
        """Send from this address of this host, of 4 or 16 bytes; empty: the kernel chooses. A connection keeps its own.

        The endpoint stays the same one: comparisons leave the source address out.
        """

    def clogged(self) -> bool:
        """Whether bytes passed to it earlier have still not left this host (never so over UDP)."""

    def ready(self) -> bool:
        """Whether a data message would be accepted now. Data is sealed only then."""

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send the data in `buffers`, one after the other. When `ready`, all of it is sent or held.

        `segment`: 0 for one message, else the size of each datagram or message but the last, which may be shorter.
        `dont_fragment`: routers must not fragment a datagram. If this host would have to, the result is TOO_BIG.
        `tos`: the TOS byte of datagrams. A stream ignores it: one TCP packet may carry parts of several messages.
        """

    def send_frame(self, frame: memoryview, *, dont_fragment: bool = True, tos: int = 0) -> Outcome:
        """Send one message, which begins at frame[2]: the bytes before it are room for its length. Else as `send`."""

    def send_first(self, message: Buffer) -> Outcome:
        """Send a handshake or keepalive message ahead of all data, ready or not."""

    def expect(self, peer: Reachable) -> None:
        """Note that an initiation of this peer was accepted here. It may be a replay, so it authenticates nobody."""

    def belongs_to(self, peer: Reachable) -> None:
        """Note that a message of this peer was authenticated here. Raises BadPacket if only another peer may send."""

    def hang_up_later(self) -> None:
        """Close soon, if this is a connection: another endpoint has replaced it."""
