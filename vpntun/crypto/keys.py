"""X25519 keys: creation, text form and Diffie-Hellman.

A key is 32 bytes in memory, and wg(8)'s 44 base64 characters outside. No error text or repr ever shows a secret.
Private keys are clamped when they are created (RFC 7748, section 5), as wg(8) does, so that the key in a file is
exactly the one that is used. A Diffie-Hellman result of zero comes from a low-order public key and is refused
(RFC 7748, section 6.1).
"""

from __future__ import annotations

import binascii
import secrets
from dataclasses import dataclass, field

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import RuntimeError as SodiumRefused

from vpntun.errors import BadPacket, ConfigurationError

KEY_SIZE = 32
_TEXT_SIZE = 44
SHOWN = 10
"""Characters of a public key, 60 bits, by which people and labels tell peers without names apart."""


def parse_key(text: str) -> bytes:
    """Return the 32 bytes of a key in wg(8)'s form; white space around it is ignored.

    Raises ConfigurationError for any text that wg(8) would not have written. The error's text never contains the key.
    """
    stripped = text.strip()
    try:
        key = binascii.a2b_base64(stripped)
    except ValueError:
        key = b""
    # Comparing with our own encoding refuses stray characters and unused bits that are set in the last character.
    if len(key) != KEY_SIZE or format_key(key) != stripped:
        raise ConfigurationError(
            f"this is not a key: a key is {KEY_SIZE} bytes in base64, {_TEXT_SIZE} characters that end in '=', "
            "as `vpntun genkey` or `wg genkey` writes it"
        )
    return key


def format_key(key: bytes) -> str:
    """A key of 32 bytes as wg(8) writes it: 44 base64 characters, no newline."""
    return binascii.b2a_base64(key, newline=False).decode("ascii")


def shortened(text: str) -> str:
    """Return the beginning of a public key in its text form: enough to tell peers apart, and not the key itself."""
    return text[:SHOWN]


def clamp(scalar: bytes) -> bytes:
    """Make 32 bytes an X25519 private key: lowest three bits and highest bit cleared, second highest set."""
    return bytes([scalar[0] & 248]) + scalar[1:31] + bytes([scalar[31] & 127 | 64])


def generate_private() -> bytes:
    """A new private key: 32 bytes, clamped."""
    return clamp(secrets.token_bytes(KEY_SIZE))


def generate_secret() -> bytes:
    """32 random bytes: a preshared key, or the secret of a shared-key file."""
    return secrets.token_bytes(KEY_SIZE)


def public_of(private: bytes) -> bytes:
    """The 32-byte public key that belongs to a private key."""
    return crypto_scalarmult_base(private)


def agree(private: bytes, public: bytes) -> bytes:
    """X25519: compute the 32 bytes that only the holders of the two private keys know.

    Raises BadPacket("low-order point") if the result is zero and therefore known to everybody.
    """
    try:
        return crypto_scalarmult(private, public)
    except SodiumRefused:
        raise BadPacket("low-order point") from None


@dataclass(frozen=True)
class KeyPair:
    """A private key and its public key, 32 bytes each."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> KeyPair:
        """The key pair of a private key."""
        return cls(private, public_of(private))

    @classmethod
    def generate(cls) -> KeyPair:
        """Create a new key pair."""
        return cls.of(generate_private())
