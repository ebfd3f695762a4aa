"""Noise's symmetric state over BLAKE2s and ChaCha20-Poly1305.

Noise specification, revision 34, section 5.2. The state consists of

chain   the secrets agreed so far: each Diffie-Hellman result and the preshared key is mixed in
digest  a hash of the messages so far: authenticated along with every text, so that both ends saw the same handshake
key     the key for the next texts: each mix into the chain that derives a key replaces it and restarts its counter at 0
"""

from __future__ import annotations

import copy
import hashlib
import hmac

from vpntun.crypto.aead import Aead, new_aead
from vpntun.errors import BadPacket
from vpntun.wire.message import TAG_SIZE


def blake2s(data: bytes) -> bytes:
    """BLAKE2s-256: 32 bytes (RFC 7693)."""
    return hashlib.blake2s(data).digest()


def derive(chain: bytes, material: bytes, count: int) -> list[bytes]:
    """`count` keys of 32 bytes: HKDF (RFC 5869, no info) with HMAC-BLAKE2s. Noise section 4.3; KDF1-3 in WireGuard."""
    secret = _hmac(chain, material)
    keys: list[bytes] = []
    last = b""
    for number in range(1, count + 1):
        last = _hmac(secret, last + bytes([number]))
        keys.append(last)
    return keys


class SymmetricState:
    """The state of one handshake at one end. It mixes plain bytes, and knows neither patterns nor message layouts."""

    def __init__(self, protocol_name: bytes, prologue: bytes) -> None:
        """`protocol_name` must be longer than a hash (33 bytes or more), as all names of this family with a psk are."""
        self._chain = blake2s(protocol_name)
        self._digest = self._chain
        self._cipher: Aead | None = None
        self._counter = 0
        self.mix_hash(prologue)

    def copy(self) -> SymmetricState:
        """An independent copy of the state."""
        return copy.copy(self)

    @property
    def handshake_hash(self) -> bytes:
        """The digest: 32 bytes, equal at both ends if both saw the same handshake."""
        return self._digest

    def mix_hash(self, data: bytes) -> None:
        self._digest = blake2s(self._digest + data)

    def mix_key(self, material: bytes) -> None:
        self._chain, key = derive(self._chain, material, 2)
        self._start_cipher(key)

    def mix_chain(self, material: bytes) -> None:
        """Mix in `material` without deriving a key, where nothing is sealed before the next key: WireGuard's KDF1."""
        [self._chain] = derive(self._chain, material, 1)

    def mix_key_and_hash(self, material: bytes) -> None:
        self._chain, to_hash, key = derive(self._chain, material, 3)
        self.mix_hash(to_hash)
        self._start_cipher(key)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Return the ciphertext, 16 bytes longer than the plaintext."""
        sealed = bytearray(len(plaintext) + TAG_SIZE)
        cipher, counter = self._next_nonce()
        cipher.seal_into(counter, plaintext, memoryview(sealed), self._digest)
        ciphertext = bytes(sealed)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        """Return the plaintext, 16 bytes shorter. Raises BadPacket("bad tag"); the state is then no longer usable."""
        if len(ciphertext) < TAG_SIZE:
            raise BadPacket("bad tag")
        opened = bytearray(len(ciphertext) - TAG_SIZE)
        cipher, counter = self._next_nonce()
        cipher.open_into(counter, ciphertext, memoryview(opened), self._digest)
        self.mix_hash(ciphertext)
        return bytes(opened)

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys, 32 bytes each: from initiator to responder, and back."""
        forth, back = derive(self._chain, b"", 2)
        return forth, back

    def _start_cipher(self, key: bytes) -> None:
        self._cipher = new_aead(key)
        self._counter = 0

    def _next_nonce(self) -> tuple[Aead, int]:
        if self._cipher is None:
            raise ValueError("this pattern seals nothing before its first Diffie-Hellman")
        counter = self._counter
        self._counter += 1
        return self._cipher, counter


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, hashlib.blake2s)
