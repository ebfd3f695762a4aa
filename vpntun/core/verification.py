"""Verification that data arrives at the peer: the last proof of it, and PROBEs that somebody has asked for.

    proof      an ECHO on the path in use, or a REPORT that counts more messages than the one before
    request    a PROBE, at most one a second however many ask. It awaits its proof until any proof comes
    doubt      three PROBEs and 2.5 s without a proof since the first of them: an earlier proof is of no use now

Nothing is sent unless somebody asks, so an idle link stays silent. Times are seconds of the caller's clock.
"""

from __future__ import annotations

from vpntun.types import NEVER

SHORTEST_BETWEEN = 1.0
FEWEST_UNANSWERED = 3
DOUBTED_AFTER = 2.5


class Verification:
    """The state of verification with one peer.

    proven_at      when the last proof came, on the path in use
    awaited_since  when the first PROBE since that proof was sent; NEVER if none was
    """

    def __init__(self) -> None:
        self._asked_at = -NEVER
        self.begin()

    def begin(self) -> None:
        """Begin on another path, on which nothing is proven."""
        self.proven_at = -NEVER
        self.awaited_since = NEVER
        self._unanswered = 0

    @property
    def is_awaited(self) -> bool:
        """Whether a PROBE has been sent since the last proof."""
        return self.awaited_since != NEVER

    def may_ask(self, now: float) -> bool:
        """Whether the last PROBE was sent long enough ago for another one."""
        return now - self._asked_at >= SHORTEST_BETWEEN

    def asked(self, now: float) -> None:
        """Note that a PROBE is being sent."""
        self._asked_at = now
        self._unanswered += 1
        self.awaited_since = min(self.awaited_since, now)

    def proven(self, now: float) -> None:
        """Note a proof."""
        self.proven_at = now
        self.awaited_since = NEVER
        self._unanswered = 0

    def is_doubted(self, now: float) -> bool:
        """Whether the peer answers no PROBE, so that an earlier proof is of no use."""
        return self._unanswered >= FEWEST_UNANSWERED and now - self.awaited_since >= DOUBTED_AFTER
