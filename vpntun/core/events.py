"""What the control plane asks of the loop: small frozen events, made here and acted on by the daemon, in order.

Deciding and acting are apart, so that what the program does can be asserted as a list, without a socket.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpntun.core.endpoint import Endpoint
from vpntun.types import CarrierName


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a handshake or keepalive message; it goes ahead of data that waits."""

    endpoint: Endpoint
    message: bytes


@dataclass(frozen=True, slots=True)
class SendRecord:
    """Seal and send a record without packets, to `endpoint` or, where that is None, to the peer's.

    `size_matters`: no router may cut its datagram, since the question is whether one of that size gets through.
    """

    record: bytes
    endpoint: Endpoint | None = None
    size_matters: bool = False


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look the peer's name up anew, off the loop."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection of a carrier to the address of this UDP endpoint."""

    carrier: CarrierName
    candidate: Endpoint


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a TCP connection that another path has replaced."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HandshakeWanted:
    """No usable session, one due for renewal, or a peer gone silent: the carriers' choice decides where to ask."""


@dataclass(frozen=True, slots=True)
class Established:
    """A session is confirmed both ways: by a response to this end (`initiator`), or by the other end's first data."""

    source: Endpoint
    initiator: bool


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The session in use is another now, and the endpoint has been settled: records begin in it."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The peer's endpoint has changed; `former` is None for the first one."""

    endpoint: Endpoint
    former: Endpoint | None


@dataclass(frozen=True, slots=True)
class ProbePath:
    """Find out whether this other path works both ways, without leaving the one in use."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class PathVerified:
    """It does."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DrainQueue:
    """What waits may leave now."""


@dataclass(frozen=True, slots=True)
class DropQueued:
    """Nobody answered for 90 s: what waits to be sent is stale and goes."""


Event = (
    Transmit
    | SendRecord
    | Resolve
    | Dial
    | CloseConnection
    | HandshakeWanted
    | Established
    | Confirmed
    | Moved
    | ProbePath
    | PathVerified
    | DrainQueue
    | DropQueued
)
