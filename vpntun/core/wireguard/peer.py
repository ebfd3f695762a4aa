"""One peer of WireGuard's protocol: its handshakes, sessions, timers and endpoint.

A peer returns events that tell what to do. It does not decide where to ask for a handshake: the choice of carriers does
(core/selection). It does not seal or open packets: the data path does.

Inbound, after the data path has looked up the receiver's index, the order is WireGuard's and must be kept:

    key age -> AEAD -> replay window -> `opened`: key confirmation, roaming, timers -> the inner packet's checks

`may_be_at` can refuse an endpoint at which this end's own messages would enter the tunnel. The peer's endpoint never
moves there. A handshake message from there is dropped; data from there is accepted but does not move the endpoint.

Two things differ from WireGuard, because there are two carriers. Each carrier has its own handshake, with its own
ephemeral and timestamp. And the endpoint moves only on the newest message of the newest session, never on an
initiation: late messages from an old TCP queue do not move it back, and a replayed initiation moves nothing.

A server lets in a peer whose clock was set back, by its own initiation (`ask_in_return`): with its own, the peer would
be refused until its clock has caught up.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Established, Event, HandshakeWanted, KeptAlive, Moved, Transmit
from vpntun.core.wireguard.indices import Indices
from vpntun.core.wireguard.initiations import Handshake, Initiations, Timestamps
from vpntun.core.wireguard.keyring import Keyring
from vpntun.core.wireguard.timers import REKEY_TIMEOUT, Timers
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import ReceivedInitiation, SessionKeys
from vpntun.crypto.session import REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME, REKEY_ON_RECEIVE_AFTER, Session
from vpntun.errors import BadPacket, OldTimestamp
from vpntun.types import DIALLED, NEVER, CarrierName
from vpntun.wire.message import DATA_OVERHEAD, Buffer, Response

SHORTEST_BETWEEN_CONSUMED = 0.02
SILENT_AFTER = 30.0
"""Seconds without a message after which a peer may have lost its session. A live one has sent a keepalive by then: with
traffic after 10 s, and without it usually after the 25 s of a persistent keepalive."""


@dataclass(frozen=True, slots=True)
class SessionOwner:
    """A session and the peer that it belongs to: what an index of a session leads to."""

    peer: Peer
    session: Session


IndexOwner: TypeAlias = "Handshake[Peer] | SessionOwner"
"""What an index in a received message leads to."""


class Peer:
    """The protocol's state for the peer with one public key.

    `keepalive` is the interval of the persistent keepalive in seconds, 0 for none. `chooses_carrier` tells that this
    end is the client. `may_be_at` tells whether the peer's endpoint may be there. All times are seconds of the caller's
    clock.
    """

    def __init__(
        self,
        identity: KeyPair,
        public: bytes,
        psk: bytes,
        indices: Indices[IndexOwner],
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
        """The round-trip time of the last handshake, in seconds; 0 before the first."""
        self.sent_bytes = self.received_bytes = 0
        """The sizes of all sealed messages sent and received, as the data path counts them."""
        self._chooses_carrier = chooses_carrier
        self._may_be_at = may_be_at
        self._indices = indices
        self._initiations = Initiations(self, public, identity, psk, timestamps, indices)
        self.receive_cookie = self._initiations.receive_cookie
        """Keep a cookie for this end's next handshake messages; raises BadPacket."""
        self._greatest_timestamp = b""
        self._consumed_at = -NEVER
        self._current_asked_at = -NEVER
        self._renewed: Session | None = None

    def initiate(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Ask for a session at `endpoint`: send an initiation, at most one in 5 s on each carrier.

        While one awaits its response, no other follows on a connection whose bytes have not yet left this host.
        """
        handshake = self._initiations.on[endpoint.carrier]
        if now - handshake.sent_at < REKEY_TIMEOUT:
            return []
        # A second initiation would supersede the first, and on a slow path every answer would be to a superseded one.
        if handshake.initiator is not None and endpoint.clogged():
            return []
        events = self._initiations.begin(handshake, endpoint, now)
        if events:
            self.timers.authenticated_sent(now)
        return events

    def ask_in_return(self, source: Endpoint, now: float) -> list[Event]:
        """Ask for a session where an authentic initiation with an old timestamp came from: send one of this end's own.

        Only the peer can answer it, and its answer moves the endpoint: to a relay, if somebody has replayed a recorded
        initiation and passes messages on. A replay gets one message for a message, at most one in 5 s, and none while
        the peer is heard. The initiation has a slot of its own and affects no timer, so replays do not keep this end
        from asking its peer. A client returns nothing: it asks its server by itself.
        """
        handshake = self._initiations.in_return
        if (
            self._chooses_carrier
            or now - self.timers.heard_at < SILENT_AFTER
            or now - handshake.sent_at < REKEY_TIMEOUT
            or not self.may_move_to(source)
        ):
            return []
        return self._initiations.begin(handshake, source, now)

    def initiate_also(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Send the initiation that awaits its response to another address of the peer, too.

        The copies are of one handshake: the peer answers the first to arrive, and drops the others as replays. With a
        handshake for each address, every initiation would supersede the one before it.
        """
        handshake = self._initiations.on[endpoint.carrier]
        if handshake.initiator is None:
            return []
        handshake.sent_to.setdefault(endpoint, now)
        self.timers.authenticated_sent(now)
        return [self._initiations.transmit(handshake.initiation, endpoint, now)]

    def forget_handshake(self, carrier: CarrierName) -> None:
        """Drop a carrier's handshake and its 5 s limit, because the carrier's path has changed."""
        self._initiations.drop(self._initiations.on[carrier])

    def receive_initiation(self, received: ReceivedInitiation, source: Endpoint, now: float) -> list[Event]:
        """Answer an initiation from this peer, on the path by which it arrived.

        Raises BadPacket for a timestamp that is not the greatest yet (OldTimestamp if it is not a copy of the newest
        initiation either), for a second initiation within 20 ms, and if the answer would enter the tunnel.
        """
        if received.timestamp < self._greatest_timestamp:
            raise OldTimestamp
        if received.timestamp == self._greatest_timestamp:
            raise BadPacket("old timestamp")
        if now - self._consumed_at < SHORTEST_BETWEEN_CONSUMED:
            raise BadPacket("initiations too fast")
        self._refuse_loop(source)
        # The index is reserved last, so that an initiation refused earlier leaves nothing behind.
        index = self._indices.reserve(self._initiations.on[source.carrier])
        try:
            message, keys = received.respond(self._initiations.psk, index)
        except BadPacket:
            self._indices.free(index)
            raise
        self._greatest_timestamp = received.timestamp
        self._consumed_at = now
        session = self._take_in(keys, index, received.sender, False, now)
        self._release(self.keys.responded(session, source.carrier))
        self._initiations.on[source.carrier].sent_at = now
        self.timers.authenticated_sent(now)
        self.timers.authenticated_received(now)
        return [self._initiations.transmit(message, source, now)]

    def forget_timestamp(self) -> None:
        """Accept any timestamp in the next initiation, as after a restart.

        Otherwise a timestamp far in the future, once accepted, locks the peer out.
        """
        self._greatest_timestamp = b""

    def receive_response(
        self, handshake: Handshake[Peer], message: Buffer, source: Endpoint, now: float
    ) -> list[Event]:
        """Complete a handshake that this end initiated.

        Raises BadPacket for a response that is not genuine; the handshake then still waits for the genuine one. Even
        the genuine response is refused if it came through the tunnel; the next handshake follows as usual.
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
        self.round_trip = now - handshake.sent_to.get(source, handshake.asked_at)
        return [Established(source, initiator=True)]

    def opened(
        self, session: Session, counter: int, source: Endpoint, now: float, *, keepalive: bool, follow: bool = True
    ) -> list[Event]:
        """Note a data message of `session` that was authenticated and is not a replay; usually returns an empty list.

        `keepalive` tells that it carries no packets, `follow` that its source may become the endpoint.
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
        # A peer without an endpoint is followed on any session: the two ends may differ on which one is the newest.
        if source is not self.endpoint and (newest or (follow and self.endpoint is None)) and self._may_follow(source):
            if source.is_stream:  # the dialling end accepts large frames only after an authenticated small one
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
        """Move the peer's endpoint there, if it may be there.

        An endpoint equal to the present one is stored too: it may use another local address.
        """
        if not self.may_move_to(endpoint):
            return []
        former, self.endpoint = self.endpoint, endpoint
        return [Moved(endpoint, former)] if endpoint != former else []

    def may_move_to(self, endpoint: Endpoint) -> bool:
        """Whether the peer is there already, or `may_be_at` allows it."""
        return endpoint == self.endpoint or self._may_be_at(endpoint)

    def sending_session(self, now: float) -> Session | None:
        """The session to seal with, or None if packets must wait for a handshake."""
        session = self.keys.current
        return session if session is not None and session.may_send(now) else None

    def is_due_for_renewal(self, session: Session, now: float) -> bool:
        """Whether sending with `session` should ask for a handshake, although the session can still be used."""
        return session.send_counter > REKEY_AFTER_MESSAGES or (
            session.initiator and now - session.created > REKEY_AFTER_TIME
        )

    def keepalive(self, endpoint: Endpoint | None, now: float) -> list[Event]:
        """Send an empty data message to `endpoint`, if there is a session and an endpoint."""
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
        """Act on every deadline that has passed; return the events that follow."""
        events: list[Event] = []
        if self.timers.keepalive_is_due(now):
            another = self.timers.another_keepalive
            events += self.keepalive(self.endpoint, now)
            self.timers.keepalive_fired(now, another)
        if self.timers.handshake_is_due(now):
            events.append(HandshakeWanted())
        if self.timers.persistent_is_due(now):
            sent = self.keepalive(self.endpoint, now)
            events += [*sent, KeptAlive()] if sent else [HandshakeWanted()]
        self.wipe_old_keys(now)
        return events

    def wipe_old_keys(self, now: float) -> None:
        """Drop every session and handshake if no session was derived for 540 s."""
        if self.timers.keys_are_due_for_wiping(now):
            self.forget()

    def forget(self) -> None:
        """Drop every session and handshake, and free their indices."""
        self._release(self.keys.wipe())
        self._initiations.drop_all()

    def identify(self, identity: KeyPair, timestamps: Timestamps) -> None:
        """Use other keys of this end from now on. Sessions and handshakes made with the former ones are dropped."""
        self._initiations.identity, self._initiations.timestamps = identity, timestamps
        self.forget()

    def change_psk(self, psk: bytes) -> None:
        """Use another preshared key in every handshake from now on, as WireGuard does: sessions continue."""
        self._initiations.psk = psk
        self._initiations.drop_all()

    def _current_began(self) -> float:
        """The time at which the current session was requested, by either end."""
        current = self.keys.current
        if current is None:
            return -NEVER
        return self._current_asked_at if current.initiator else current.created

    def _may_follow(self, source: Endpoint) -> bool:
        """Whether data from `source` may move the endpoint there.

        A server follows its peer to any path that is allowed. A client follows only from UDP to UDP, since it chooses
        the carrier.
        """
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
