"""WireGuard's timers (paper section 6; kernel timers.c), without retransmission, which the choice of carriers does.

    timer           armed by                                         fires
    keepalive       data received: 10 s; pending already: once more   an empty data message
    new handshake   data sent: 15 s and jitter, if not pending        a handshake: the peer is silent
    zero keys       session derived: 540 s                            every session key is wiped
    persistent      any authenticated packet, either way              an empty data message

Any authenticated send cancels the keepalive, any authenticated receive the new handshake. A deadline that is not
armed is infinite, so the earliest is a plain `min`, and arming is one assignment: these run once a packet.
"""

from __future__ import annotations

import random

from vpntun.types import NEVER

REKEY_TIMEOUT = 5.0
KEEPALIVE_TIMEOUT = 10.0
REKEY_ATTEMPT_TIME = 90.0
ZERO_KEYS_AFTER = 540.0
LARGEST_JITTER = 1 / 3


class Timers:
    """One peer's deadlines, in seconds of the caller's monotonic clock.

    `persistent` is the persistent keepalive's interval in seconds, 0 for none.
    """

    __slots__ = (
        "_rng",
        "another_keepalive",
        "heard_at",
        "keepalive",
        "new_handshake",
        "persistent",
        "persistent_interval",
        "unanswered_since",
        "zero_keys",
    )

    def __init__(self, rng: random.Random, persistent: float = 0.0) -> None:
        self._rng = rng
        self.another_keepalive = False
        """Whether data came while the keepalive was pending."""
        self.persistent_interval = persistent
        self.keepalive = NEVER
        self.new_handshake = NEVER
        self.zero_keys = NEVER
        self.persistent = NEVER
        self.heard_at = -NEVER
        """When the last message came that was authenticated."""
        self.unanswered_since = NEVER
        """When the first data was sent after that."""

    def earliest(self) -> float:
        """The next deadline, NEVER if none is armed."""
        return min(self.keepalive, self.new_handshake, self.zero_keys, self.persistent)

    def keep_alive(self, interval: float, now: float) -> None:
        """From now on the persistent keepalive has this interval, 0 for none."""
        self.persistent_interval = interval
        self.persistent = NEVER
        self._traversed(now)

    def data_sent(self, now: float) -> None:
        """A data message that carries something was sent."""
        if self.new_handshake == NEVER:
            self.new_handshake = now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + LARGEST_JITTER * self._rng.random()
            self.unanswered_since = min(self.unanswered_since, now)
        self.keepalive = NEVER
        self.another_keepalive = False
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval

    def authenticated_sent(self, now: float) -> None:
        """Any message that the peer can authenticate was sent."""
        self.keepalive = NEVER
        self.another_keepalive = False
        self._traversed(now)

    def data_received(self, now: float) -> None:
        """A data message that carries something was received."""
        if self.keepalive == NEVER:
            self.keepalive = now + KEEPALIVE_TIMEOUT
        else:
            self.another_keepalive = True
        self.new_handshake = self.unanswered_since = NEVER
        self.heard_at = now
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval

    def authenticated_received(self, now: float) -> None:
        """Any message was received and authenticated."""
        self.new_handshake = self.unanswered_since = NEVER
        self.heard_at = now
        self._traversed(now)

    def is_silent(self, now: float) -> bool:
        """Whether data was sent so long ago that a peer that is there would have said something since."""
        return now - self.unanswered_since >= KEEPALIVE_TIMEOUT + REKEY_TIMEOUT

    def session_derived(self, now: float) -> None:
        """Fresh keys: the old ones and these are wiped if nothing replaces them."""
        self.zero_keys = now + ZERO_KEYS_AFTER

    def keepalive_is_due(self, now: float) -> bool:
        """Whether the passive keepalive fires now; `keepalive_fired` is to follow."""
        return now >= self.keepalive

    def keepalive_fired(self, now: float, another: bool) -> None:
        """It did; one more follows where `another_keepalive` was set, as it stood before this one was sent."""
        self.keepalive = now + KEEPALIVE_TIMEOUT if another else NEVER
        self.another_keepalive = False

    def handshake_is_due(self, now: float) -> bool:
        """Whether data was sent and nothing has come back."""
        if now < self.new_handshake:
            return False
        self.new_handshake = NEVER
        return True

    def keys_are_due_for_wiping(self, now: float) -> bool:
        """Whether no session was derived for three lifetimes of one."""
        if now < self.zero_keys:
            return False
        self.zero_keys = NEVER
        return True

    def persistent_is_due(self, now: float) -> bool:
        """Whether the path was quiet for the persistent interval; re-armed at once, so a failed send is repeated."""
        if now < self.persistent:
            return False
        self._traversed(now)
        return True

    def _traversed(self, now: float) -> None:
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval
