"""WireGuard's timers for one peer: keepalives, new handshake, wiping of keys.

WireGuard paper, section 6; kernel timers.c. Retransmission is missing here, because the choice of carriers
(core/selection) does it.

    timer           armed by                                           effect
    keepalive       data received: 10 s; if pending: again after it    an empty data message
    new handshake   data sent, if not pending: 15 s and jitter         a handshake, because the peer is silent
    zero keys       session derived: 540 s                             every session key is wiped
    persistent      any authenticated message, either way              an empty data message

Any authenticated send cancels the keepalive, any authenticated receive the new handshake. A deadline that is not armed
is infinite, so the earliest is a plain `min`, and arming is one assignment. That matters because this code runs once
per packet.
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
    """One peer's deadlines, in seconds of the caller's clock.

    The argument `persistent` is the persistent keepalive's interval in seconds, 0 for none.
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
        """Whether data arrived while the keepalive was pending."""
        self.persistent_interval = persistent
        self.keepalive = NEVER
        self.new_handshake = NEVER
        self.zero_keys = NEVER
        self.persistent = NEVER
        self.heard_at = -NEVER
        """The time at which the last authenticated message arrived."""
        self.unanswered_since = NEVER
        """The time at which the first data was sent after that."""

    def earliest(self) -> float:
        """The next deadline, or NEVER if none is armed."""
        return min(self.keepalive, self.new_handshake, self.zero_keys, self.persistent)

    def keep_alive(self, interval: float, now: float) -> None:
        """Set the persistent keepalive's interval, 0 for none."""
        self.persistent_interval = interval
        self.persistent = NEVER
        self._traversed(now)

    def data_sent(self, now: float) -> None:
        """Note that a data message with packets was sent."""
        if self.new_handshake == NEVER:
            self.new_handshake = now + KEEPALIVE_TIMEOUT + REKEY_TIMEOUT + LARGEST_JITTER * self._rng.random()
            self.unanswered_since = min(self.unanswered_since, now)
        self.keepalive = NEVER
        self.another_keepalive = False
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval

    def authenticated_sent(self, now: float) -> None:
        """Note that a message which the peer can authenticate was sent."""
        self.keepalive = NEVER
        self.another_keepalive = False
        self._traversed(now)

    def data_received(self, now: float) -> None:
        """Note that a data message with packets was received."""
        if self.keepalive == NEVER:
            self.keepalive = now + KEEPALIVE_TIMEOUT
        else:
            self.another_keepalive = True
        self.new_handshake = self.unanswered_since = NEVER
        self.heard_at = now
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval

    def authenticated_received(self, now: float) -> None:
        """Note that a message of any kind was received and authenticated."""
        self.new_handshake = self.unanswered_since = NEVER
        self.heard_at = now
        self._traversed(now)

    def is_silent(self, now: float) -> bool:
        """Whether data has been unanswered for 15 s; a live peer would have sent something by then."""
        return now - self.unanswered_since >= KEEPALIVE_TIMEOUT + REKEY_TIMEOUT

    def session_derived(self, now: float) -> None:
        """Note that a session was derived: all keys are wiped after 540 s unless another session follows."""
        self.zero_keys = now + ZERO_KEYS_AFTER

    def keepalive_is_due(self, now: float) -> bool:
        """Whether the passive keepalive is due; the caller must call `keepalive_fired` next."""
        return now >= self.keepalive

    def keepalive_fired(self, now: float, another: bool) -> None:
        """Note that the passive keepalive was sent; re-arm it if `another`.

        `another` is the value of `another_keepalive` from before the keepalive was sent.
        """
        self.keepalive = now + KEEPALIVE_TIMEOUT if another else NEVER
        self.another_keepalive = False

    def handshake_is_due(self, now: float) -> bool:
        """Whether a new handshake is due, because data was sent and nothing came back; disarms the timer if so."""
        if now < self.new_handshake:
            return False
        self.new_handshake = NEVER
        return True

    def keys_are_due_for_wiping(self, now: float) -> bool:
        """Whether no session was derived for 540 s, three lifetimes of one; disarms the timer if so."""
        if now < self.zero_keys:
            return False
        self.zero_keys = NEVER
        return True

    def persistent_is_due(self, now: float) -> bool:
        """Whether the path was quiet for the persistent interval; re-arms the timer, so a failed send is repeated."""
        if now < self.persistent:
            return False
        self._traversed(now)
        return True

    def _traversed(self, now: float) -> None:
        if self.persistent_interval:
            self.persistent = now + self.persistent_interval
