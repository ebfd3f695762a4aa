"""One peer: its handshakes, its sessions, its timers and its endpoint. It says what to do; where to ask for a
handshake is the carriers' choice (client.py, server.py), and packets are sealed and opened by the host's data path.

Inbound, after the host has looked the receiver's index up (the order is WireGuard's, and is kept):

    key age -> AEAD -> replay window -> `opened`: key confirmation, roaming, timers -> the inner packet's checks

The endpoint never becomes one that the host refuses: there, this end's messages would enter the tunnel themselves. A
handshake message from such an endpoint is dropped; data from there is accepted but does not move the endpoint.

Two things differ from WireGuard, both for the carriers' sake. There is one handshake under way *per carrier*, each with
its own ephemeral and timestamp. And the endpoint moves only on the newest message of the newest session, never
on an initiation: late messages out of an old TCP queue do not flip it back, and a replayed initiation moves nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Established, Event, HandshakeWanted, Moved, Transmit
from vpntun.core.wireguard.indices import Indices
from vpntun.core.wireguard.keyring import Keyring
from vpntun.core.wireguard.timers import REKEY_TIMEOUT, Timers
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator, ReceivedInitiation, SessionKeys
from vpntun.crypto.session import REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_ON_RECEIVE_AFTER, Session
from vpntun.errors import BadPacket
from vpntun.types import CARRIERS, DIALLED, NEVER, CarrierName
from vpntun.wire.message import DATA_OVERHEAD, Buffer, Response

SHORTEST_BETWEEN_CONSUMED = 0.02


class Timestamps(Protocol):
    """Where an initiation's TAI64N timestamp comes from: strictly increasing, also over restarts of this end."""

    def next(self) -> bytes:
        """12 bytes, greater than any returned before."""


@dataclass(slots=True)
class Handshake:
    """One carrier's handshake: what was sent last, and when; `asked_at` is when that was an initiation."""

    peer: Peer
    carrier: CarrierName
    sent_at: float = -NEVER
    asked_at: float = -NEVER
    index: int = 0
    initiator: Initiator | None = None


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """A session and the peer that it belongs to, as its index leads to them."""

    peer: Peer
    session: Session


class Peer:
    """The protocol's state towards one public key.

    `keepalive`: the persistent one's interval in seconds, 0 for none. `chooses_carrier`: this end is the client.
    `may_be_at`: whether the host lets an endpoint be the peer's. All times are seconds of the caller's monotonic clock.
    """

    def __init__(
        self,
        identity: KeyPair,
        public: bytes,
        psk: bytes,
        indices: Indices[Handshake | SessionOwner],
        timestamps: Timestamps,
        rng: random.Random,
        *,
        keepalive: float = 0.0,
        chooses_carrier: bool = False,
        may_be_at: Callable[[Endpoint], bool] = lambda endpoint: True,
    ) -> None:
        self.public = public
        self.endpoint: Endpoint | None = None
        self.keys = Keyring()
        self.timers = Timers(rng, keepalive)
        self.last_handshake: float | None = None
        self.round_trip = 0.0
        """Of the last handshake, in seconds; 0 before the first."""
        self.sent_bytes = self.received_bytes = 0
        """Of all messages, sealed, as the host counts them."""
        self._chooses_carrier = chooses_carrier
        self._may_be_at = may_be_at
        self._identity = identity
        self._psk = psk
        self._indices = indices
        self._timestamps = timestamps
        self._handshakes = {carrier: Handshake(self, carrier) for carrier in CARRIERS}
        self._greatest_timestamp = b""
        self._consumed_at = -NEVER
        self._current_asked_at = -NEVER
        self._renewed: Session | None = None

    def initiate(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Ask for a session there: at most one initiation in 5 s on each carrier, none behind one that still waits."""
        handshake = self._handshakes[endpoint.carrier]
        if now - handshake.sent_at < REKEY_TIMEOUT:
            return []
        # A second would supersede the first, and a slow path's answers would always be to a superseded one.
        if handshake.initiator is not None and endpoint.clogged():
            return []
        self.forget_handshake(endpoint.carrier)
        handshake.sent_at = handshake.asked_at = now
        handshake.index = self._indices.reserve(handshake)
        handshake.initiator = Initiator(self._identity, self.public, self._psk)
        message = handshake.initiator.initiation(handshake.index, self._timestamps.next())
        self.timers.authenticated_sent(now)
        return [Transmit(endpoint, message)]

    def forget_handshake(self, carrier: CarrierName) -> None:
        """Let a carrier's handshake go, and with it its pace: its path is another now."""
        handshake = self._handshakes[carrier]
        if handshake.initiator is not None:
            self._indices.free(handshake.index)
            handshake.initiator = None
        handshake.sent_at = -NEVER

    def receive_initiation(self, received: ReceivedInitiation, source: Endpoint, now: float) -> list[Event]:
        """Answer an initiation of this peer's, on the path that it came by.

        Raises BadPacket for a timestamp that is not the greatest yet, for the second within 20 ms, and where the answer
        would enter the tunnel.
        """
        if received.timestamp <= self._greatest_timestamp:
            raise BadPacket("old timestamp")
        if now - self._consumed_at < SHORTEST_BETWEEN_CONSUMED:
            raise BadPacket("initiations too fast")
        self._refuse_loop(source)
        # The index is taken last: an initiation that fails in the middle must leave nothing behind.
        index = self._indices.reserve(self._handshakes[source.carrier])
        try:
            message, keys = received.respond(self._psk, index)
        except BadPacket:
            self._indices.free(index)
            raise
        self._greatest_timestamp = received.timestamp
        self._consumed_at = now
        session = self._take_in(keys, index, received.sender, False, now)
        self._release(self.keys.responded(session, source.carrier))
        self._handshakes[source.carrier].sent_at = now
        self.timers.authenticated_sent(now)
        self.timers.authenticated_received(now)
        return [Transmit(source, message)]

    def forget_timestamp(self) -> None:
        """Accept any timestamp in the next initiation, as after a restart: one from the future keeps the peer out."""
        self._greatest_timestamp = b""

    def receive_response(self, handshake: Handshake, message: Buffer, source: Endpoint, now: float) -> list[Event]:
        """Finish a handshake of ours. Raises BadPacket, and then the handshake still waits for the genuine response.

        The genuine response is refused too where it came from inside the tunnel. The next handshake follows as usual.
        """
        if handshake.initiator is None:
            raise BadPacket("unasked response")
        keys = handshake.initiator.consume_response(message)
        self._refuse_loop(source)
        handshake.initiator = None
        session = self._take_in(keys, handshake.index, Response.parse(message).sender, True, now)
        late = handshake.asked_at < self._current_began()
        if not late:
            self._current_asked_at = handshake.asked_at
        self._release(self.keys.initiated(session, late=late))
        self.timers.authenticated_received(now)
        self.last_handshake = now
        self.round_trip = now - handshake.asked_at
        return [Established(source, initiator=True)]

    def opened(
        self, session: Session, counter: int, source: Endpoint, now: float, *, keepalive: bool, follow: bool = True
    ) -> list[Event]:
        """A data message of `session` was authenticated and is no replay. Mostly answers the empty list.

        `keepalive`: it carries no packets. `follow`: where it came from may become the endpoint.
        """
        events: list[Event] = []
        if session is not self.keys.current:
            dropped = self.keys.confirm(session)
            if dropped is not None:
                self._release(dropped)
                self.last_handshake = now
                self.round_trip = now - session.created
                events.append(Established(source, initiator=False))
        if keepalive:
            self.timers.authenticated_received(now)
        else:
            self.timers.data_received(now)
        current = session is self.keys.current
        newest = follow and current and counter == session.highest_received
        # A peer that is nowhere is followed on any session: the two ends may hold different ones for the newest.
        if source is not self.endpoint and (newest or (follow and self.endpoint is None)) and self._may_follow(source):
            if source.is_stream:  # the end that dialled admits large frames only after an authenticated small one
                events += self.keepalive(source, now)
            events += self.move_to(source)
        if (
            current
            and session.initiator
            and now - session.created > REKEY_ON_RECEIVE_AFTER
            and session is not self._renewed
        ):
            self._renewed = session
            events.append(HandshakeWanted())
        return events

    def move_to(self, endpoint: Endpoint) -> list[Event]:
        """Reach the peer there from now on, if it may be there.

        An equal endpoint may still differ in which of our addresses it uses.
        """
        if not self.may_move_to(endpoint):
            return []
        former, self.endpoint = self.endpoint, endpoint
        return [Moved(endpoint, former)] if endpoint != former else []

    def may_move_to(self, endpoint: Endpoint) -> bool:
        """Whether the peer is there already, or the host lets it be there."""
        return endpoint == self.endpoint or self._may_be_at(endpoint)

    def sending_session(self, now: float) -> Session | None:
        """The session to seal with, or None: then packets wait for a handshake."""
        session = self.keys.current
        return session if session is not None and session.may_send(now) else None

    def is_due_for_renewal(self, session: Session, now: float) -> bool:
        """Whether a send with `session` asks for a handshake, though it still serves."""
        return session.send_counter > REKEY_AFTER_MESSAGES or (
            session.initiator and now - session.created > REKEY_AFTER_TIME
        )

    def keepalive(self, endpoint: Endpoint | None, now: float) -> list[Event]:
        """An empty data message, where there is a session and somewhere to send it."""
        session = self.sending_session(now)
        if session is None or endpoint is None:
            return []
        message = bytearray(DATA_OVERHEAD)
        session.seal_into(b"", memoryview(message))
        self.timers.authenticated_sent(now)
        events: list[Event] = [Transmit(endpoint, bytes(message))]
        if self.is_due_for_renewal(session, now):
            events.append(HandshakeWanted())
        return events

    def handle_timers(self, now: float) -> list[Event]:
        """What the deadlines that have passed ask for."""
        events: list[Event] = []
        if self.timers.keepalive_is_due(now):
            another = self.timers.another_keepalive
            events += self.keepalive(self.endpoint, now)
            self.timers.keepalive_fired(now, another)
        if self.timers.handshake_is_due(now):
            events.append(HandshakeWanted())
        if self.timers.persistent_is_due(now):
            events += self.keepalive(self.endpoint, now) or [HandshakeWanted()]
        if self.timers.keys_are_due_for_wiping(now):
            self.forget()
        return events

    def forget(self) -> None:
        """Let every key and handshake go: nothing that comes for them leads here any more."""
        self._release(self.keys.wipe())
        for carrier in CARRIERS:
            self.forget_handshake(carrier)

    def _current_began(self) -> float:
        """When the session in use was asked for, by whichever end."""
        current = self.keys.current
        if current is None:
            return -NEVER
        return self._current_asked_at if current.initiator else current.created

    def _may_follow(self, source: Endpoint) -> bool:
        """Whether the endpoint moves to `source`. A client chooses the carrier, and follows only from UDP to UDP."""
        if self._chooses_carrier and (
            self.endpoint is None or self.endpoint.carrier in DIALLED or source.carrier != self.endpoint.carrier
        ):
            return False
        return self.may_move_to(source)

    def _refuse_loop(self, source: Endpoint) -> None:
        if not self.may_move_to(source):
            raise BadPacket("routing loop")

    def _take_in(self, keys: SessionKeys, index: int, remote: int, initiator: bool, now: float) -> Session:
        session = Session(keys, index, remote, initiator, now)
        self._indices.hand_over(index, SessionOwner(self, session))
        self.timers.session_derived(now)
        return session

    def _release(self, sessions: list[Session]) -> None:
        for session in sessions:
            self._indices.free(session.local_index)
