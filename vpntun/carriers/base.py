"""What a link sees of a carrier: somewhere to send, which may not be ready just now."""

from __future__ import annotations

import enum
import socket
from typing import NamedTuple, Protocol

from vpntun.core.events import Endpoint
from vpntun.core.wireguard.peer import Peer
from vpntun.types import SocketAddress
from vpntun.wire.message import Buffer


class Outcome(enum.Enum):
    """What became of a message."""

    SENT = enum.auto()
    HELD = enum.auto()
    TOO_BIG = enum.auto()
    UNDELIVERABLE = enum.auto()


class Flow(NamedTuple):
    """The packets that a path sends to the peer, as this host's routes tell them apart.

    `source` is empty where the kernel chooses it. `scope`: the device's number, where the address is link-local.
    """

    protocol: int
    source: bytes
    source_port: int
    destination: bytes
    destination_port: int
    scope: int = 0

    @property
    def ports(self) -> tuple[int, int, int]:
        """What the packets' own headers say behind the addresses: the protocol, and the ports of both ends."""
        return self.protocol, self.source_port, self.destination_port


class Path(Endpoint, Protocol):
    """An endpoint that can be sent to."""

    @property
    def where(self) -> str:
        """The other end's address and port, as in 203.0.113.2:55555 and [2001:db8::2]:55555."""

    @property
    def ipv6(self) -> bool:
        """Whether it goes over IPv6."""

    @property
    def flow(self) -> Flow:
        """The packets that it sends."""

    def ready(self) -> bool:
        """Whether a data message would be taken now. Data is sealed only then."""

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True) -> Outcome:
        """Take data, which lies in `buffers` one after the other; when `ready`, all of it is sent or held.

        `segment`: 0 for one message, else the size of the datagrams that it goes in (UDP alone), the last may be
        shorter. `dont_fragment`: no router may cut a datagram, and TOO_BIG is the answer where this host would have to.
        """

    def send_first(self, message: Buffer) -> Outcome:
        """Take a handshake or keepalive message, ready or not, to go ahead of all data."""

    def expect(self, peer: Peer) -> None:
        """An initiation of this peer's was accepted here. It authenticates nobody, since it may be a replay."""

    def belongs_to(self, peer: Peer) -> None:
        """A message of this peer's was authenticated here. Raises BadPacket where only another peer's may come."""

    def hang_up_later(self) -> None:
        """Another path has replaced this one: close it soon, if it is something that closes."""


def packed(address: SocketAddress) -> bytes:
    """The 4 or 16 bytes of a socket address's host."""
    host = address[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)


def scope_of(address: SocketAddress) -> int:
    """The number of the device that a link-local socket address belongs to; 0 for others."""
    return address[3] if len(address) == 4 else 0
