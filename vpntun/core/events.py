"""Events: requests and news from the control plane, which the executor carries out in order.

The core returns events instead of acting. So a test can check what the program does as a list, without a socket.
"""

from __future__ import annotations

from dataclasses import dataclass

from vpntun.core.endpoint import Endpoint
from vpntun.types import CarrierName


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a handshake or keepalive message, ahead of waiting data."""

    endpoint: Endpoint
    message: bytes


@dataclass(frozen=True, slots=True)
class SendRecord:
    """Seal and send a record without packets, to `endpoint` or, if that is None, to the peer's endpoint.

    With `size_matters`, routers must not fragment its datagram: the record tests whether one of that size gets through.
    With `datagram` as well, it is sent as a burst of datagrams of that many bytes, and tests whether bursts do.
    """

    record: bytes
    endpoint: Endpoint | None = None
    size_matters: bool = False
    datagram: int = 0


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look the peer's name up again, outside the event loop."""


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a connection of this carrier to the address of an endpoint."""

    carrier: CarrierName
    candidate: Endpoint


@dataclass(frozen=True, slots=True)
class GiveUpDials:
    """Give up the connections that are being opened: the address that they are opened from may be of no use now."""


@dataclass(frozen=True, slots=True)
class RenewPort:
    """Call from another local port from now on, if none was asked for: a router may have spoilt the one in use."""


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close a connection that another endpoint has replaced."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class HandshakeWanted:
    """A handshake is needed: no usable session, a session due for renewal, or a silent peer.

    The carrier selector (core/selection) decides where to ask for it.
    """


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """A keepalive was sent on a path that was quiet, or is new: only an ECHO can show that anything arrives there."""


@dataclass(frozen=True, slots=True)
class SessionDoubtful:
    """The peer may have lost the session: for this number of seconds it has answered no PROBE."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NothingArrives:
    """Nothing that was sent for 15 s has arrived at the peer, whatever comes from there."""


@dataclass(frozen=True, slots=True)
class Established:
    """A session is confirmed in both directions.

    The response confirms it at the initiator (`initiator`), the initiator's first data at the responder.
    """

    source: Endpoint
    initiator: bool


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Another session is in use and the endpoint is settled: the record protocol begins in that session."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The peer's endpoint has changed; `former` is None if there was none before."""

    endpoint: Endpoint
    former: Endpoint | None


@dataclass(frozen=True, slots=True)
class ProbePath:
    """Test whether another path works in both directions, while the one in use stays in use."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class PathVerified:
    """The tested path works in both directions."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class DrainQueue:
    """Start sending the packets that wait in the queue."""


@dataclass(frozen=True, slots=True)
class DropQueued:
    """Drop the packets that wait in the queue: nobody answered for 90 s, so they are stale."""


Event = (
    Transmit
    | SendRecord
    | Resolve
    | Dial
    | GiveUpDials
    | RenewPort
    | CloseConnection
    | HandshakeWanted
    | KeptAlive
    | SessionDoubtful
    | NothingArrives
    | Established
    | Confirmed
    | Moved
    | ProbePath
    | PathVerified
    | DrainQueue
    | DropQueued
)
