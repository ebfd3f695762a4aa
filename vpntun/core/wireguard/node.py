"""This end of every link: one identity, the peers it knows, and who holds which index.

A handshake message is judged in the order of its cost: type and size, mac1, the index or the static key, and only
then the peer's state. Whatever fails raises BadPacket and has changed nothing; nobody is answered.
"""

from __future__ import annotations

from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Event
from vpntun.core.wireguard.indices import Indices
from vpntun.core.wireguard.peer import Handshake, Peer, SessionOwner
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import consume_initiation
from vpntun.errors import BadPacket, ConfigurationError
from vpntun.wire.message import DATA, INITIATION, RESPONSE, Buffer, kind_of, receiver_of


class Node:
    """Knows the peers by their public keys and by the indices given to them."""

    def __init__(self, identity: KeyPair) -> None:
        self.identity = identity
        self.indices: Indices[Handshake | SessionOwner] = Indices()
        self.peers: dict[bytes, Peer] = {}

    def add(self, peer: Peer) -> None:
        """Know a peer. Raises ConfigurationError for this end's own key."""
        if peer.public == self.identity.public:
            raise ConfigurationError("the peer's public key is this end's own: give the key of the other machine")
        self.peers[peer.public] = peer

    def remove(self, peer: Peer) -> None:
        """Know a peer no more: its sessions are gone, and whatever still comes from it is dropped."""
        del self.peers[peer.public]
        peer.forget()

    def receive_handshake(self, message: Buffer, source: Endpoint, now: float) -> tuple[Peer, list[Event]]:
        """Take in a message of any type but data; raises BadPacket, where it can with an initiation's sender."""
        kind = kind_of(message)
        if kind == INITIATION:
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
            handshake = self.indices.find(receiver_of(message))
            if not isinstance(handshake, Handshake):
                raise BadPacket("unknown index")
            return handshake.peer, handshake.peer.receive_response(handshake, message, source, now)
        raise BadPacket("unasked cookie" if kind != DATA else "bad type")

    def session_for(self, message: Buffer, now: float) -> SessionOwner:
        """Who a data message is for; raises BadPacket for an unknown index or a session past its age."""
        return self.session_at(receiver_of(message), now)

    def session_at(self, index: int, now: float) -> SessionOwner:
        """Who holds an index of a data message; raises as `session_for`."""
        held = self.indices.find(index)
        if not isinstance(held, SessionOwner):
            raise BadPacket("unknown index")
        if not held.session.may_receive(now):
            raise BadPacket("expired session")
        return held
