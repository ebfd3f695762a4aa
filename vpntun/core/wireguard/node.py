"""This end of all links: its identity, its known peers, and the owners of its indices.

A handshake message is checked in order of increasing cost: type and size, mac1, the index or the static key, and only
then the peer's state. A message that fails a check raises BadPacket, changes nothing and gets no answer.
"""

from __future__ import annotations

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event
from vpntun.core.wireguard.admission import Admission
from vpntun.core.wireguard.indices import Indices
from vpntun.core.wireguard.initiations import Handshake
from vpntun.core.wireguard.peer import IndexOwner, Peer, SessionOwner
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import consume_initiation
from vpntun.errors import BadPacket, ConfigurationError
from vpntun.wire.message import COOKIE_REPLY, INITIATION, RESPONSE, Buffer, kind_of, receiver_of


class Node:
    """This end, which finds peers by their public keys and by the indices given to them.

    `identity`: None while this end has no private key. Until it is given, no handshake is accepted.
    """

    def __init__(self, identity: KeyPair | None) -> None:
        self.identity = identity
        self.indices: Indices[IndexOwner] = Indices()
        self.peers: dict[bytes, Peer] = {}
        self.admission = Admission()

    def add(self, peer: Peer) -> None:
        """Add a peer. Raises ConfigurationError if its public key is this end's own."""
        if self.identity is not None and peer.public == self.identity.public:
            raise ConfigurationError("the peer's public key is this end's own: give the key of the other machine")
        self.peers[peer.public] = peer

    def remove(self, peer: Peer) -> None:
        """Remove a peer: its sessions are wiped, and everything that still arrives from it is dropped."""
        del self.peers[peer.public]
        peer.forget()

    def admit(self, message: Buffer, source: Endpoint, now: float) -> bytes:
        """Let an initiation or a response, of the size of its type, wait for `receive_handshake` in the queue.

        Returns the cookie reply that its sender must answer first, or nothing if the message waits. Raises BadPacket.
        """
        if self.identity is None:
            raise BadPacket("no private key yet")
        if message[0] == RESPONSE:
            self._handshake_of(message)
        return self.admission.admit(self.identity, message, source, now)

    def receive_handshake(self, message: Buffer, source: Endpoint, now: float) -> tuple[Peer, list[Event]]:
        """Process a message of any type but data; return its peer and the events that follow.

        Raises BadPacket; its `sender` is set if an authenticated initiation of a known peer is refused.
        """
        kind = kind_of(message)
        if kind == INITIATION:
            if self.identity is None:
                raise BadPacket("no private key yet")
            received = consume_initiation(self.identity, message)
            peer = self.peers.get(received.peer)
            if peer is None:
                raise BadPacket("unknown peer")
            try:
                return peer, peer.receive_initiation(received, source, now)
            except BadPacket as bad:
                bad.sender = peer
                raise
        if kind == RESPONSE:
            handshake = self._handshake_of(message)
            return handshake.peer, handshake.peer.receive_response(handshake, message, source, now)
        if kind == COOKIE_REPLY:
            owner = self.indices.find(receiver_of(message))
            if owner is None:
                raise BadPacket("unasked cookie")
            owner.peer.receive_cookie(message, source, now)
            return owner.peer, []
        raise BadPacket("bad type")

    def _handshake_of(self, response: Buffer) -> Handshake[Peer]:
        handshake = self.indices.find(receiver_of(response))
        if not isinstance(handshake, Handshake):
            raise BadPacket("unknown index")
        return handshake

    def session_for(self, message: Buffer, now: float) -> SessionOwner:
        """Return the session, and its peer, for a data message.

        Raises BadPacket for an unknown index or an expired session.
        """
        return self.session_at(receiver_of(message), now)

    def session_at(self, index: int, now: float) -> SessionOwner:
        """Return the session, and its peer, for a data message's receiver index; raises as `session_for` does."""
        owner = self.indices.find(index)
        if not isinstance(owner, SessionOwner):
            raise BadPacket("unknown index")
        if not owner.session.may_receive(now):
            raise BadPacket("expired session")
        return owner
