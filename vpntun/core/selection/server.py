"""The server's choice of carriers: answer on any path, ask only where the peer was last seen.

    handshake needed, endpoint known      it sends an initiation every 5 s, for 90 s; then queued packets are dropped
    handshake needed, endpoint unknown    it waits for the client; after 90 s queued packets are dropped
    the TCP connection closes             the endpoint becomes unknown
    another route, or address, here       a keepalive, or if the peer is being asked another initiation at once
    nothing that is sent arrives          as if a handshake were needed; the endpoint stays
    woken after a pause of this end       as if a handshake were needed

A server never dials.
"""

from __future__ import annotations

import random

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import CloseConnection, DropQueued, Event
from vpntun.core.selection.reason import Reason, reason_of_server
from vpntun.core.wireguard.peer import Peer
from vpntun.core.wireguard.timers import LARGEST_JITTER, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT
from vpntun.types import NEVER


class ServerCarriers:
    """The decisions of the end that waits for calls: when to ask `peer` for a handshake."""

    def __init__(self, peer: Peer, rng: random.Random) -> None:
        self.deadline = NEVER
        self._peer = peer
        self._rng = rng
        self._gives_up_at = NEVER
        self._has_closed = False

    @property
    def searching(self) -> bool:
        """Whether the peer is being asked for a handshake."""
        return self.deadline != NEVER and self._peer.endpoint is not None

    @property
    def reason(self) -> Reason:
        """Why the carrier in use was chosen, or why there is none."""
        endpoint = self._peer.endpoint
        carrier = endpoint.carrier if endpoint is not None else None
        is_heard = self._peer.timers.heard_at != -NEVER
        return reason_of_server(carrier, is_heard=is_heard, has_closed=self._has_closed)

    def start(self, now: float) -> list[Event]:
        """Ask at once, at the endpoint that the peer had before this end was restarted."""
        return self.want(now)

    def want(self, now: float) -> list[Event]:
        """Ask for a handshake, unless that is already under way."""
        if self.deadline == NEVER:
            self._gives_up_at = now + REKEY_ATTEMPT_TIME
        elif self.deadline != self._gives_up_at or self._peer.endpoint is None:
            return []
        return self._ask(now)

    def doubt_session(self, seconds: float, now: float) -> list[Event]:
        """Wait: a client that has lost its sessions calls by itself."""
        return []

    def nothing_arrives(self, now: float) -> list[Event]:
        """Ask where the peer was last seen; only the client can find another path."""
        return self.want(now)

    def woken(self, now: float) -> list[Event]:
        """Ask at once, and for 90 s from now: this end did not run for a while, and its peer may have given up."""
        if self._peer.endpoint is not None:
            self._peer.forget_handshake(self._peer.endpoint.carrier)
        self.deadline = NEVER
        return self.want(now)

    def rerouted(self, now: float, *, lost: bool) -> list[Event]:
        """Send the peer a keepalive from the new address, or ask at once; give up a connection if that is `lost`."""
        endpoint = self._peer.endpoint
        if endpoint is not None and endpoint.is_stream and lost:
            return [CloseConnection(endpoint), *self.lost(endpoint, now)]
        return self.woken(now) if self.searching else self._peer.keepalive(endpoint, now)

    def handle_timer(self, now: float) -> list[Event]:
        """Ask again, or give up after 90 s."""
        if now < self.deadline:
            return []
        if now >= self._gives_up_at:
            self.deadline = NEVER
            return [DropQueued()] if self._peer.sending_session(now) is None else []
        return self._ask(now)

    def established(self, source: Endpoint, now: float, *, initiator: bool) -> list[Event]:
        """Note that a session is established; its initiator confirms it by a keepalive."""
        self.deadline = NEVER
        if not initiator:
            return []
        return self._peer.move_to(source) + self._peer.keepalive(source, now)

    def lost(self, connection: Endpoint, now: float) -> list[Event]:
        """Forget an endpoint whose connection has closed: the peer has to call again."""
        if self._peer.endpoint == connection:
            self._peer.endpoint = None
            self._has_closed = True
            self._peer.forget_handshake(connection.carrier)
            self.deadline = NEVER
        return []

    def verified(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Stay: a server follows its peer, and moves nowhere by itself."""
        return []

    def undeliverable(self, endpoint: Endpoint, now: float) -> list[Event]:
        """Wait for the next attempt: a server knows no other endpoint of its peer."""
        return []

    def _ask(self, now: float) -> list[Event]:
        if self._peer.endpoint is None:
            self.deadline = self._gives_up_at
            return []
        self.deadline = now + REKEY_TIMEOUT + self._rng.uniform(0, LARGEST_JITTER)
        return self._peer.initiate(self._peer.endpoint, now)
