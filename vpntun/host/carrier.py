"""What a link sees of a carrier: somewhere to send, which may not be ready just now."""

from __future__ import annotations

import enum
from typing import Protocol

from vpntun.core.events import Endpoint
from vpntun.core.peer import Peer
from vpntun.wire.message import Buffer


class Outcome(enum.Enum):
    """What became of a message."""

    SENT = enum.auto()
    HELD = enum.auto()
    TOO_BIG = enum.auto()
    UNDELIVERABLE = enum.auto()


class Path(Endpoint, Protocol):
    """An endpoint that can be sent to."""

    @property
    def where(self) -> str:
        """The other end's address and port, as in 203.0.113.2:55555 and [2001:db8::2]:55555."""

    @property
    def ipv6(self) -> bool:
        """Whether it goes over IPv6."""

    def ready(self) -> bool:
        """Whether a data message would be taken now. Data is sealed only then."""

    def send(self, buffers: list[memoryview], segment: int = 0, *, whole: bool = True) -> Outcome:
        """Take data, which lies in `buffers` one after the other; when `ready`, all of it is sent or held.

        `segment`: 0 for one message, else the size of the datagrams that it goes in (UDP alone), the last may be
        shorter. `whole`: no router may cut a datagram, and TOO_BIG is the answer where this host would have to.
        """

    def send_first(self, message: Buffer) -> Outcome:
        """Take a handshake or keepalive message, ready or not, to go ahead of all data."""

    def expect(self, peer: Peer) -> None:
        """An initiation of this peer's was accepted here. It authenticates nobody, since it may be a replay."""

    def belongs_to(self, peer: Peer) -> None:
        """A message of this peer's was authenticated here. Raises BadPacket where only another peer's may come."""

    def hang_up_later(self) -> None:
        """Another path has replaced this one: close it soon, if it is something that closes."""
