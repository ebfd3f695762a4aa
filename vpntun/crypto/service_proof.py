"""Proof that a visitor has the key of a service, which the offering end checks where a visit begins.

    proof = BLAKE2s-256, keyed with the service's key (RFC 7693), of "vpntun service 1", nonce, token and service's name

The nonce is the offering end's and new for each connection, so a proof is of no use for another one. A visitor without
a key gives zeros.
"""

from __future__ import annotations

import hashlib
import hmac

PURPOSE = b"vpntun service 1"
NO_PROOF = bytes(32)


def prove(key: bytes | None, nonce: bytes, token: bytes, service: str) -> bytes:
    """Return the proof, 32 bytes. `key`: 32 bytes, or None."""
    if key is None:
        return NO_PROOF
    return hashlib.blake2s(PURPOSE + nonce + token + service.encode(), key=key).digest()


def is_proven(proof: bytes, key: bytes, nonce: bytes, token: bytes, service: str) -> bool:
    """Return whether a proof was made with this key; the comparison takes the same time whatever the proof is."""
    return hmac.compare_digest(proof, prove(key, nonce, token, service))
