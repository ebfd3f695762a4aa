"""Noise's handshake pattern IKpsk2: writing and reading of its two messages.

Noise specification, revision 34, sections 7.5 and 9:

    <- s                        the initiator knows the responder's static key beforehand
    ...
    -> e, es, s, ss             first message:  ephemeral, sealed static, sealed payload
    <- e, ee, se, psk           second message: ephemeral, sealed payload

Because the pattern has a preshared key, an ephemeral is mixed into the chain as well as the hash. Keys are 32 bytes.
All functions change the state they are given. WireGuard is this pattern with a prologue of its own (`noise.py`).

Every function that takes bytes from the other end raises only BadPacket: "bad tag" or "low-order point".
"""

from __future__ import annotations

from vpntun.crypto.keys import KeyPair, agree
from vpntun.crypto.symmetric import SymmetricState

PROTOCOL_NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"


def start(prologue: bytes, responder: bytes) -> SymmetricState:
    """The state before the first message; `responder` is the responder's static public key."""
    state = SymmetricState(PROTOCOL_NAME, prologue)
    state.mix_hash(responder)
    return state


def write_first(
    state: SymmetricState, identity: KeyPair, ephemeral: KeyPair, responder: bytes, payload: bytes
) -> tuple[bytes, bytes]:
    """Return the initiator's sealed static key (48 bytes) and its sealed payload (16 bytes longer than the payload).

    Raises BadPacket("low-order point") if the responder's configured key is one.
    """
    _mix_ephemeral(state, ephemeral.public)
    state.mix_key(agree(ephemeral.private, responder))
    static = state.encrypt_and_hash(identity.public)
    state.mix_key(agree(identity.private, responder))
    return static, state.encrypt_and_hash(payload)


def read_static(state: SymmetricState, identity: KeyPair, ephemeral: bytes, static: bytes) -> bytes:
    """At the responder, read the first half of the first message: the public key that the initiator claims."""
    _mix_ephemeral(state, ephemeral)
    state.mix_key(agree(identity.private, ephemeral))
    return state.decrypt_and_hash(static)


def read_first_payload(state: SymmetricState, identity: KeyPair, initiator: bytes, payload: bytes) -> bytes:
    """At the responder, read the second half: the payload, whose tag proves that the initiator owns its key."""
    state.mix_key(agree(identity.private, initiator))
    return state.decrypt_and_hash(payload)


def write_second(
    state: SymmetricState, ephemeral: KeyPair, initiator: bytes, initiator_ephemeral: bytes, psk: bytes, payload: bytes
) -> bytes:
    """Return the responder's sealed payload (16 bytes longer than the payload)."""
    _mix_ephemeral(state, ephemeral.public)
    state.mix_chain(agree(ephemeral.private, initiator_ephemeral))
    state.mix_chain(agree(ephemeral.private, initiator))
    state.mix_key_and_hash(psk)
    return state.encrypt_and_hash(payload)


def read_second(
    state: SymmetricState, identity: KeyPair, own_ephemeral: KeyPair, ephemeral: bytes, psk: bytes, payload: bytes
) -> bytes:
    """At the initiator, read the second message: the payload, whose tag proves that the responder sent it."""
    _mix_ephemeral(state, ephemeral)
    state.mix_chain(agree(own_ephemeral.private, ephemeral))
    state.mix_chain(agree(identity.private, ephemeral))
    state.mix_key_and_hash(psk)
    return state.decrypt_and_hash(payload)


def _mix_ephemeral(state: SymmetricState, public: bytes) -> None:
    state.mix_hash(public)
    state.mix_chain(public)
