"""Initiations that this end sends to one peer, and the handshakes that they begin.

Each carrier has a handshake of its own, with its own ephemeral and timestamp. One more begins when this end asks for a
handshake in return (Peer.ask_in_return), so that replays cannot disturb the others. A new initiation replaces the one
before it in the same handshake.

Every handshake message, an answer too, leaves by `transmit`, which makes its mac2 if the peer has sent a cookie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event, Transmit
from vpntun.core.wireguard.indices import Indices
from vpntun.crypto.cookies import CookieJar
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator
from vpntun.errors import BadPacket
from vpntun.types import CARRIERS, NEVER
from vpntun.wire.message import Buffer

Owner = TypeVar("Owner")


class Timestamps(Protocol):
    """Source of the TAI64N timestamps in initiations: strictly increasing, even across restarts of this end."""

    def next(self) -> bytes:
        """Return 12 bytes, greater than any returned before."""


@dataclass(slots=True)
class Handshake(Generic[Owner]):
    """One handshake with `peer`.

    `sent_at` is the time of the last handshake message sent, `asked_at` that of the last initiation. `initiator` is set
    while the response to it is awaited. `sent_to`: when the initiation was sent to which endpoint.
    """

    peer: Owner
    sent_at: float = -NEVER
    asked_at: float = -NEVER
    index: int = 0
    initiator: Initiator | None = None
    initiation: bytes = b""
    sent_to: dict[Endpoint, float] = field(default_factory=dict)


class Initiations(Generic[Owner]):
    """Initiations to `peer`, whose public key is `public`.

    on          handshake of each carrier
    in_return   handshake that is asked for in return
    identity    this end's keys, in the next initiation
    psk         preshared key of the next handshake, 32 bytes
    timestamps  source of the next initiation's timestamp
    """

    def __init__(
        self, peer: Owner, public: bytes, identity: KeyPair, psk: bytes, timestamps: Timestamps, indices: Indices[Any]
    ) -> None:
        self.on = {carrier: Handshake(peer) for carrier in CARRIERS}
        self.in_return = Handshake(peer)
        self.identity = identity
        self.psk = psk
        self.timestamps = timestamps
        self._public = public
        self._indices = indices
        self._cookies = CookieJar(public)

    def begin(self, handshake: Handshake[Owner], endpoint: Endpoint, now: float) -> list[Event]:
        """Send a new initiation to `endpoint`.

        None is sent to a peer whose key is a low-order point: everybody would know the secrets of its sessions.
        """
        self.drop(handshake)
        handshake.sent_at = handshake.asked_at = now
        initiator, index = Initiator(self.identity, self._public, self.psk), self._indices.reserve(handshake)
        try:
            handshake.initiation = initiator.initiation(index, self.timestamps.next())
        except BadPacket:
            self._indices.free(index)
            return []
        handshake.initiator, handshake.index = initiator, index
        handshake.sent_to = {endpoint: now}
        return [self.transmit(handshake.initiation, endpoint, now)]

    def drop(self, handshake: Handshake[Owner]) -> None:
        """Drop what a handshake waits for, and its 5 s limit."""
        if handshake.initiator is not None:
            self._indices.free(handshake.index)
            handshake.initiator = None
        handshake.sent_at = -NEVER

    def drop_all(self) -> None:
        """Drop every handshake."""
        for handshake in (*self.on.values(), self.in_return):
            self.drop(handshake)

    def transmit(self, message: bytes, endpoint: Endpoint, now: float) -> Transmit:
        """Send a handshake message, with a mac2 if the peer has replied with a cookie."""
        return Transmit(endpoint, self._cookies.protect(message, endpoint.via, now))

    def receive_cookie(self, message: Buffer, source: Endpoint, now: float) -> None:
        """Keep the cookie of a loaded peer for the next messages. Nothing is repeated now, and no endpoint moves.

        Raises BadPacket unless it is the reply to the last handshake message sent by this path.
        """
        self._cookies.take(message, source.via, now)
