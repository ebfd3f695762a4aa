"""Admission of handshake messages: cheap checks, cookies under load, and a queue for messages that pass them.

A handshake costs this end several Diffie-Hellmans, and the sender of a forged one next to nothing. So an initiation or
a response is checked in this order before anything is computed for it:

    1. A response must name a handshake of this end that awaits it.
    2. mac1 must be right: the sender knows this end's public key.
    3. Under load, mac2 must be right too, or else the message is refused with a cookie reply. A connection needs none:
       its address is proven.
    4. Under load, each network's rate is limited.
    5. The queue must have room.

Steps 3 and 4 leave out a response whose handshake has no other one in the queue, since this end has asked for it.

This end is under load while many messages wait, while one waits for long, while many are refused, and for a second
after that. Then a flood of messages with a valid mac1 leaves it time for data, and an honest sender gets in with its
next message. Otherwise neither cookies nor rates matter.
"""

from __future__ import annotations

from collections import Counter, deque

from vpntun.core.endpoint import Endpoint
from vpntun.core.source_limits import SourceLimits
from vpntun.crypto.cookies import CookieChecker, has_mac2
from vpntun.crypto.keys import KeyPair
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.message import RESPONSE, Buffer, receiver_of, sender_of

MOST_WAITING = 4096
MANY = 1024
"""Number of messages that are a load, waiting, or refused within a second."""
LONGEST_WAIT = 0.25
"""Seconds for which a message may wait without load. On a slow host fewer than MANY take so long that every answer
would be too late: a sender tries again after 5 s, and then only the answer to that is accepted."""
SECONDS_OF_LOAD = 1.0
PORT_SIZE = 2


class Admission:
    """Queue of handshake messages. Times are seconds of the caller's clock."""

    def __init__(self) -> None:
        self.loads = 0
        """Number of times that a load has begun."""
        self._waiting: deque[tuple[bytes, Endpoint, float]] = deque()
        """Messages, their sources, and when they came; oldest first."""
        self._answered: Counter[int] = Counter()
        """Number of waiting responses of each handshake, by its index."""
        self._limits = SourceLimits()
        self._identity: KeyPair | None = None
        self._checker: CookieChecker | None = None
        self._loaded_until = -NEVER
        self._refused = 0
        self._counts_until = -NEVER

    def __len__(self) -> int:
        """Return the number of waiting messages."""
        return len(self._waiting)

    def is_loaded(self, now: float) -> bool:
        """Whether this end is under load."""
        return now < self._loaded_until

    def admit(self, identity: KeyPair, message: Buffer, source: Endpoint, now: float) -> bytes:
        """Put an initiation or an awaited response to `identity` into the queue.

        The message has the size of its type. Returns the cookie reply for a sender that must repeat the message with a
        mac2, or nothing if the message waits. Raises BadPacket.
        """
        checker = self._checker_of(identity)
        checker.check_mac1(message)
        index = receiver_of(message) if message[0] == RESPONSE else None
        if self._waiting and now - self._waiting[0][2] > LONGEST_WAIT:
            self._begin_load(now)
        if self.is_loaded(now) and (index is None or index in self._answered):
            origin = source.origin
            if not source.is_stream:
                cookie = checker.cookie(origin, now)
                if not has_mac2(message, cookie):
                    self._note_refused(now)
                    return checker.reply(message, sender_of(message), cookie)
            if not self._limits.allow(origin[:-PORT_SIZE], now):
                self._note_refused(now)
                raise BadPacket("too many handshakes")
        if len(self._waiting) >= MOST_WAITING:
            raise BadPacket("handshake queue full")
        self._waiting.append((bytes(message), source, now))
        if index is not None:
            self._answered[index] += 1
        if len(self._waiting) >= MANY:
            self._begin_load(now)
        return b""

    def next(self) -> tuple[bytes, Endpoint] | None:
        """Return the message that has waited longest, with its source, and remove it from the queue; None: no more."""
        if not self._waiting:
            return None
        message, source, _ = self._waiting.popleft()
        if message[0] == RESPONSE:
            index = receiver_of(message)
            self._answered[index] -= 1
            if not self._answered[index]:
                del self._answered[index]
        return message, source

    def _checker_of(self, identity: KeyPair) -> CookieChecker:
        if self._checker is None or identity is not self._identity:
            self._identity, self._checker = identity, CookieChecker(identity.public)
        return self._checker

    def _note_refused(self, now: float) -> None:
        """Prolong the load while its cause lasts: the queue gets empty, since those messages do not enter it."""
        if now >= self._counts_until:
            self._refused, self._counts_until = 0, now + 1.0
        self._refused += 1
        if self._refused >= MANY:
            self._begin_load(now)

    def _begin_load(self, now: float) -> None:
        if not self.is_loaded(now):
            self.loads += 1
            self._limits.clear()
        self._loaded_until = now + SECONDS_OF_LOAD
