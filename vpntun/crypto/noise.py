"""WireGuard's handshake: Noise IKpsk2 in two messages, each protected by mac1.

    initiator                                       responder
    Initiator(...).initiation(sender, timestamp) -> consume_initiation(identity, message)
                                                      the caller looks up .peer, its psk and its last timestamp
    .consume_response(message)                   <- .respond(psk, sender)
    SessionKeys                                     SessionKeys, not to be used before the initiator's first data

Computing mac1 takes the recipient's public key. A received message is checked in this order: shape, mac1, first
Diffie-Hellman. So a message from a sender that does not know the recipient's public key costs only one hash. WireGuard
paper, sections 5.4.2 to 5.4.5.

Received messages are untrusted: only BadPacket is raised for them ("bad size", "bad type", "bad reserved", "bad mac1",
"low-order point", "bad tag", "own key", "unasked response"). mac2 is left zero here; cookies.py makes and checks it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from vpntun.crypto import ikpsk2
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.symmetric import SymmetricState, blake2s
from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer, Initiation, Response

PROLOGUE = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
MAC_SIZE = 16
_NO_MAC = bytes(MAC_SIZE)
_BOTH_MACS = 2 * MAC_SIZE


@dataclass(frozen=True)
class SessionKeys:
    """The result of a handshake: the keys (32 bytes each) with which this end seals and opens data."""

    send: bytes = field(repr=False)
    receive: bytes = field(repr=False)


class Initiator:
    """One initiation, and the state needed to consume its response."""

    def __init__(self, identity: KeyPair, peer: bytes, psk: bytes, ephemeral: KeyPair | None = None) -> None:
        """`peer` is the responder's public key, `psk` 32 bytes (zeros: none). Only tests pass `ephemeral`."""
        self._identity = identity
        self._peer = peer
        self._psk = psk
        self._ephemeral = ephemeral or KeyPair.generate()
        self._state: SymmetricState | None = None
        self._is_used = False

    def initiation(self, sender: int, timestamp: bytes) -> bytes:
        """Return the message, 148 bytes: `sender` is this end's 32-bit index, `timestamp` is TAI64N (12 bytes).

        May be called only once, since a second timestamp under the same ephemeral key would repeat a nonce; a second
        call raises RuntimeError. Raises BadPacket("low-order point") if the peer's configured key is one, which no real
        peer can have.
        """
        if self._is_used:
            raise RuntimeError("an Initiator makes one initiation; make another Initiator")
        self._is_used = True
        state = ikpsk2.start(PROLOGUE, self._peer)
        static, sealed = ikpsk2.write_first(state, self._identity, self._ephemeral, self._peer, timestamp)
        self._state = state
        message = Initiation(sender, self._ephemeral.public, static, sealed, _NO_MAC, _NO_MAC)
        return _with_mac1(message.pack(), self._peer)

    def consume_response(self, message: Buffer) -> SessionKeys:
        """Return the keys of the new session, given the 92 bytes of a genuine response. The caller checks its indices.

        A refused response changes nothing: the genuine one can still arrive. Once that has arrived, no other is
        accepted.
        """
        response = Response.parse(message)
        _check_mac1(message, response.mac1, self._identity.public)
        if self._state is None:
            raise BadPacket("unasked response")
        state = self._state.copy()
        ikpsk2.read_second(state, self._identity, self._ephemeral, response.ephemeral, self._psk, response.empty)
        self._state = None
        send, receive = state.split()
        return SessionKeys(send, receive)


@dataclass(frozen=True)
class ReceivedInitiation:
    """An authenticated initiation: `peer` is its sender's public key, `timestamp` its TAI64N, `sender` its index.

    It may still be a replay, which the caller detects by the timestamp.
    """

    peer: bytes
    timestamp: bytes
    sender: int
    _ephemeral: bytes = field(repr=False)
    _state: SymmetricState = field(repr=False)

    def respond(self, psk: bytes, sender: int, ephemeral: KeyPair | None = None) -> tuple[bytes, SessionKeys]:
        """Return the response, 92 bytes, and the session's keys; `sender` is this end's index.

        Only tests pass `ephemeral`.
        """
        own = ephemeral or KeyPair.generate()
        state = self._state.copy()
        empty = ikpsk2.write_second(state, own, self.peer, self._ephemeral, psk, b"")
        response = Response(sender, self.sender, own.public, empty, _NO_MAC, _NO_MAC)
        receive, send = state.split()
        return _with_mac1(response.pack(), self.peer), SessionKeys(send, receive)


def consume_initiation(identity: KeyPair, message: Buffer) -> ReceivedInitiation:
    """Open the 148 bytes of a genuine initiation to `identity`. The caller checks whether the peer is known.

    Raises BadPacket, for example "own key" if the initiation names this end's own public key as its sender's.
    """
    initiation = Initiation.parse(message)
    _check_mac1(message, initiation.mac1, identity.public)
    state = ikpsk2.start(PROLOGUE, identity.public)
    peer = ikpsk2.read_static(state, identity, initiation.ephemeral, initiation.static)
    if peer == identity.public:
        raise BadPacket("own key")
    timestamp = ikpsk2.read_first_payload(state, identity, peer, initiation.timestamp)
    return ReceivedInitiation(peer, timestamp, initiation.sender, initiation.ephemeral, state)


def mac1_key(public: bytes) -> bytes:
    """The key (32 bytes) for mac1 in every handshake message to the owner of this public key."""
    return blake2s(b"mac1----" + public)


def _mac1(covered: Buffer, recipient: bytes) -> bytes:
    return hashlib.blake2s(covered, key=mac1_key(recipient), digest_size=MAC_SIZE).digest()


def _with_mac1(message: bytes, recipient: bytes) -> bytes:
    covered = message[:-_BOTH_MACS]
    return covered + _mac1(covered, recipient) + _NO_MAC


def _check_mac1(message: Buffer, mac1: bytes, recipient: bytes) -> None:
    if not hmac.compare_digest(mac1, _mac1(message[:-_BOTH_MACS], recipient)):
        raise BadPacket("bad mac1")
