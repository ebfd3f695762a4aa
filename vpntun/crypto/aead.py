"""ChaCha20-Poly1305 (RFC 8439) with WireGuard's nonce, from one of two backends.

It works in the caller's buffers. The nonce is 4 zero bytes and the 64-bit little-endian counter (WireGuard paper,
section 5.4.6).

    backend   library                            copies
    openssl   cryptography >= 47, optional       none
    sodium    PyNaCl, a required dependency      input and output, as its binding accepts and returns only bytes

Importing this file selects the backend: `new_aead` creates a cipher with it, `BACKEND` names it. Both backends behave
alike.

This is the hot path: the caller slices its buffers to the exact size, and nothing here checks or slices them again.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Protocol

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer

try:
    from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
except ImportError:
    _CRYPTOGRAPHY_IS_THERE = False
else:
    _CRYPTOGRAPHY_IS_THERE = True

_nonce = struct.Struct("<4xQ").pack
_sodium_seal = sodium.crypto_aead_chacha20poly1305_ietf_encrypt
_sodium_open = sodium.crypto_aead_chacha20poly1305_ietf_decrypt


class Aead(Protocol):
    """The cipher of one key.

    Input and output must not overlap, or must begin at the same byte (sealing and opening in place); any other overlap
    produces garbage. `associated` is authenticated along with the text; in data messages it is empty.
    """

    def seal_into(self, counter: int, plaintext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        """Write ciphertext and tag; return their size. `out` is exactly 16 bytes longer than the plaintext.

        Raises ValueError for an `out` of another size.
        """

    def open_into(self, counter: int, ciphertext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        """Write the plaintext; return its size. `out` is exactly 16 bytes shorter than the ciphertext.

        Raises BadPacket("bad tag") for a ciphertext that is forged or shorter than a tag. `out` then holds garbage, so
        a caller that may try again must not open in place. Raises ValueError for an `out` of another size.
        """


class SodiumAead:
    """Cipher from libsodium, through PyNaCl."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def seal_into(self, counter: int, plaintext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        out[:] = _sodium_seal(bytes(plaintext), associated, _nonce(counter), self._key)
        return len(out)

    def open_into(self, counter: int, ciphertext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        try:
            plaintext = _sodium_open(bytes(ciphertext), associated, _nonce(counter), self._key)
        except (CryptoError, ValueError):  # ValueError: shorter than a tag
            raise BadPacket("bad tag") from None
        out[:] = plaintext
        return len(out)


class OpensslAead:
    """Cipher from OpenSSL, through the package cryptography."""

    __slots__ = ("_open", "_seal")

    def __init__(self, key: bytes) -> None:
        cipher = ChaCha20Poly1305(key)
        self._seal = cipher.encrypt_into
        self._open = cipher.decrypt_into

    def seal_into(self, counter: int, plaintext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        return self._seal(_nonce(counter), plaintext, associated, out)

    def open_into(self, counter: int, ciphertext: Buffer, out: memoryview, associated: bytes = b"") -> int:
        try:
            return self._open(_nonce(counter), ciphertext, associated, out)
        except InvalidTag:
            raise BadPacket("bad tag") from None


def _why_not_openssl() -> str:
    if not _CRYPTOGRAPHY_IS_THERE:
        return "the package cryptography is not installed"
    try:
        OpensslAead(bytes(32))
    except AttributeError:
        return "the package cryptography is older than 47"
    except UnsupportedAlgorithm:
        return "this OpenSSL has no ChaCha20-Poly1305"
    return ""


WHY_NOT_OPENSSL: str = _why_not_openssl()
"""The reason why OpensslAead does not work here; empty if it does."""

BACKEND: str
new_aead: Callable[[bytes], Aead]
if WHY_NOT_OPENSSL:
    BACKEND, new_aead = "sodium", SodiumAead
else:
    BACKEND, new_aead = "openssl", OpensslAead
