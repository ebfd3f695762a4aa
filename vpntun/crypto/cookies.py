"""Cookies, by which a sender proves to a loaded end that it receives at its address.

    sender                                          the loaded end
    message, mac1, mac2 = zeros                  -> mac1 proves that the sender knows the recipient's public key
    the cookie, sealed, with that mac1           <- cookie = MAC(secret, the sender's address and port)
    the next message, mac1, mac2 = MAC(cookie)   -> mac2 proves that the sender received the cookie

The loaded end stores nothing for a sender: it computes the cookie again. Its secret is random and lasts 120 s. A sender
uses a cookie for less than 115 s. If the secret has changed meanwhile, the sender gets a new cookie reply. WireGuard
paper, sections 5.4.4 and 5.4.7.

    MAC         BLAKE2s with a key and 16 bytes of output
    sealing     XChaCha20-Poly1305 with the key BLAKE2s-256("cookie--" || public key of the loaded end), a random nonce
                of 24 bytes, and the mac1 that is answered as associated data

Received messages are untrusted: only BadPacket is raised for them ("bad mac1", "bad tag", "unasked cookie").
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Hashable
from dataclasses import dataclass

from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from vpntun.crypto.noise import MAC_SIZE, mac1_key
from vpntun.crypto.symmetric import blake2s
from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer, CookieReply

SECRET_SIZE = 32
NONCE_SIZE = 24
SECRET_LASTS = 120.0
COOKIE_LASTS = 115.0
MOST_PATHS = 4
_NEVER = float("-inf")
_MAC2 = -MAC_SIZE
_MAC1 = 2 * _MAC2
_seal = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt
_open = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt


def seal_key(public: bytes) -> bytes:
    """The key (32 bytes) by which the owner of this public key seals its cookies."""
    return blake2s(b"cookie--" + public)


class CookieChecker:
    """Checker of mac1 and mac2 in initiations and responses, and maker of cookie replies: the loaded end.

    `public`: this end's public key. Times are in seconds. Messages have the size of their type.
    """

    def __init__(self, public: bytes) -> None:
        self._mac1 = hashlib.blake2s(key=mac1_key(public), digest_size=MAC_SIZE)
        self._seal_key = seal_key(public)
        self._expires_at = _NEVER
        self._cookies = hashlib.blake2s()

    def check_mac1(self, message: Buffer) -> None:
        """Raise BadPacket("bad mac1") unless the sender knows this end's public key."""
        mac1 = self._mac1.copy()
        mac1.update(message[:_MAC1])
        if not hmac.compare_digest(mac1.digest(), message[_MAC1:_MAC2]):
            raise BadPacket("bad mac1")

    def cookie(self, origin: bytes, now: float) -> bytes:
        """Return the cookie (16 bytes) of a sender. `origin`: its address, and its port in 2 bytes, big endian."""
        if now >= self._expires_at:
            self._expires_at = now + SECRET_LASTS
            self._cookies = hashlib.blake2s(key=secrets.token_bytes(SECRET_SIZE), digest_size=MAC_SIZE)
        cookie = self._cookies.copy()
        cookie.update(origin)
        return cookie.digest()

    def reply(self, message: Buffer, sender: int, cookie: bytes) -> bytes:
        """Return the cookie reply (64 bytes) to a message whose sender has the index `sender`."""
        nonce = secrets.token_bytes(NONCE_SIZE)
        return CookieReply(sender, nonce, _seal(cookie, bytes(message[_MAC1:_MAC2]), nonce, self._seal_key)).pack()


def has_mac2(message: Buffer, cookie: bytes) -> bool:
    """Whether a message was made with this cookie."""
    return hmac.compare_digest(message[_MAC2:], _mac2(message[:_MAC2], cookie))


@dataclass(slots=True)
class _Path:
    """The messages sent by one path: the last mac1 that no cookie has answered, and the last cookie."""

    mac1: bytes = b""
    cookie: bytes = b""
    received_at: float = _NEVER


class CookieJar:
    """Cookies that one peer has replied with: the sender's end.

    A cookie holds for the address and port that it was sent to. So there is one for each path, which is any value that
    identifies a local port. The last MOST_PATHS paths are remembered. `public`: the peer's key.
    """

    def __init__(self, public: bytes) -> None:
        self._seal_key = seal_key(public)
        self._paths: dict[Hashable, _Path] = {}

    def protect(self, message: bytes, path: Hashable, now: float) -> bytes:
        """Return an initiation or a response, which has its mac1, with mac2: zeros unless there is a fresh cookie.

        The message must be sent, and by this path: a cookie is accepted in reply to it.
        """
        sent = self._paths.pop(path, None) or _Path()
        self._paths[path] = sent
        if len(self._paths) > MOST_PATHS:
            del self._paths[next(iter(self._paths))]
        sent.mac1 = message[_MAC1:_MAC2]
        if now - sent.received_at >= COOKIE_LASTS:
            return message[:_MAC2] + bytes(MAC_SIZE)
        return message[:_MAC2] + _mac2(message[:_MAC2], sent.cookie)

    def take(self, message: Buffer, path: Hashable, now: float) -> None:
        """Take the cookie from a reply to the last message that was sent by this path.

        Only one reply is accepted for a message. Raises BadPacket("unasked cookie") for any other, and "bad tag" for
        one that is not genuine; the genuine one can still arrive.
        """
        reply = CookieReply.parse(message)
        sent = self._paths.get(path)
        if sent is None or not sent.mac1:
            raise BadPacket("unasked cookie")
        try:
            cookie = _open(reply.cookie, sent.mac1, reply.nonce, self._seal_key)
        except CryptoError:
            raise BadPacket("bad tag") from None
        sent.mac1, sent.cookie, sent.received_at = b"", cookie, now


def _mac2(covered: Buffer, cookie: bytes) -> bytes:
    return hashlib.blake2s(covered, key=cookie, digest_size=MAC_SIZE).digest()
