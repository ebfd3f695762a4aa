"""One peer's sessions, and the only ways one takes another's place (paper section 6; kernel noise.c add_new_keypair).

    event                               next             current      previous
    we initiated, response came         dropped          the new one  the newest next, or else the old current
    we responded (on one carrier)       the new one      stays        dropped
    first data on a next                taken from here  that next    the old current
    either, older than current          as above         stays        the new one, or that next

WireGuard has one `next`; here each carrier has its own, because a client may ask over UDP and TCP at the same time:
a shared place would let the later answer throw away a session that the other end is about to use. And so a session may
come late, behind one that was asked for after it. Both ends then keep to the one asked for last: they agree on it,
since a responder takes initiations in the order of their timestamps, and it is the one that has survived a restart.
"""

from __future__ import annotations

from vpntun.crypto.session import Session
from vpntun.types import CarrierName


class Keyring:
    """The sessions of one peer. Methods that drop sessions return them, wiped, so that their indices can be freed."""

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: dict[CarrierName, Session] = {}

    def all(self) -> list[Session]:
        """Every session there is."""
        return [session for session in (self.previous, self.current, *self.next.values()) if session is not None]

    def initiated(self, session: Session, *, late: bool = False) -> list[Session]:
        """Take in a session whose response has just authenticated; `late`: `current` was asked for after it."""
        if late:
            return self._late(session)
        unconfirmed = max(self.next.values(), key=lambda each: each.created, default=None)
        former = self.all()
        self.previous = unconfirmed or self.current
        self.current = session
        self.next = {}
        return self._wiped(former)

    def responded(self, session: Session, carrier: CarrierName) -> list[Session]:
        """Take in a session that the initiator has not confirmed yet."""
        former = self.all()
        self.previous = None
        self.next[carrier] = session
        return self._wiped(former)

    def confirm(self, session: Session) -> list[Session] | None:
        """The first data came on `session`: None if it was no next (nothing changes), else what was dropped."""
        carrier = next((carrier for carrier, waiting in self.next.items() if waiting is session), None)
        if carrier is None:
            return None
        if self.current is not None and not self.current.initiator and session.created < self.current.created:
            del self.next[carrier]
            return self._late(session)
        former = self.all()
        del self.next[carrier]
        self.previous, self.current = self.current, session
        return self._wiped(former)

    def wipe(self) -> list[Session]:
        """Drop every session."""
        former = self.all()
        self.previous = self.current = None
        self.next = {}
        return self._wiped(former)

    def _late(self, session: Session) -> list[Session]:
        former = self.all()
        self.previous = session
        return self._wiped(former)

    def _wiped(self, former: list[Session]) -> list[Session]:
        kept = self.all()
        dropped = [session for session in former if not any(session is other for other in kept)]
        for session in dropped:
            session.wipe()
        return dropped
