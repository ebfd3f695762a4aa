"""One end of a handshake that is never confirmed: it asks, and recognises the answer.

A response proves that the other end has the right keys and can be reached in both directions. It prepares a session
there, but nothing changes unless this end sends data in it, which only path.py does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from vpntun.crypto.cookies import CookieJar
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.wire.message import COOKIE_REPLY, RESPONSE, Buffer, kind_of, receiver_of, sender_of

PATH = "doctor"


class Handshake:
    """A handshake with one peer by one socket, begun again by each initiation.

    is_loaded     whether the peer has answered with a cookie alone
    is_foreign    whether something came that the peer would not send
    """

    def __init__(self, identity: KeyPair, peer: bytes, psk: bytes, stamp: Callable[[], bytes]) -> None:
        self._identity, self._peer, self._psk = identity, peer, psk
        self._stamp = stamp
        self._jar = CookieJar(peer)
        self._initiator: Initiator | None = None
        self._index = 0
        self.is_loaded = self.is_foreign = False

    def initiation(self, now: float) -> bytes:
        """Return the next initiation, 148 bytes."""
        self._index = secrets.randbits(32)
        self._initiator = Initiator(self._identity, self._peer, self._psk)
        return self._jar.protect(self._initiator.initiation(self._index, self._stamp()), PATH, now)

    def take(self, message: Buffer, now: float) -> Session | None:
        """Take a message that came; return the session once it is the peer's response."""
        try:
            return self._take(message, now)
        except BadPacket:
            self.is_foreign = True
            return None

    def _take(self, message: Buffer, now: float) -> Session | None:
        kind = kind_of(message)
        if kind == COOKIE_REPLY:
            self._jar.take(message, PATH, now)
            self.is_loaded = True
        elif kind == RESPONSE and self._initiator is not None and receiver_of(message) == self._index:
            keys = self._initiator.consume_response(message)
            return Session(keys, self._index, sender_of(message), initiator=True, created=now)
        else:
            self.is_foreign = True
        return None
