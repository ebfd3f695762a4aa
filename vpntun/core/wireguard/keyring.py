"""One peer's sessions: previous, current and next, and the rules by which one replaces another.

WireGuard paper, section 6; kernel noise.c, add_new_keypair:

    event                                 next             current          previous
    response arrived, this end initiated  dropped          the new session  the newest next, or else the old current
    this end responded (on one carrier)   the new session  unchanged        dropped
    first data on a next                  that is removed  that next        the old current
    1st or 3rd, if older than current     as above         unchanged        the new session, or that next

WireGuard has one `next`; here each carrier has its own, because a client may ask over UDP and TCP at the same time.
With a shared one, the later answer would discard a session that the other end is about to use. As a consequence a
session may arrive late: after another that was requested later. Both ends then keep the one requested last as current.
They agree on which that is, since a responder accepts initiations only in the order of their timestamps. And if one end
was restarted, it is the session that survived.
"""

from __future__ import annotations

from vpntun.crypto.session import Session
from vpntun.types import CarrierName


class Keyring:
    """The sessions of one peer.

    Methods that drop sessions return them, already wiped, so that the caller can free their indices.
    """

    def __init__(self) -> None:
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: dict[CarrierName, Session] = {}

    def all(self) -> list[Session]:
        """All sessions: previous, current and each next."""
        return [session for session in (self.previous, self.current, *self.next.values()) if session is not None]

    def initiated(self, session: Session, *, late: bool = False) -> list[Session]:
        """Add a session whose response was just authenticated; `late` if `current` was requested after it."""
        if late:
            return self._add_late(session)
        unconfirmed = max(self.next.values(), key=lambda each: each.created, default=None)
        former = self.all()
        self.previous = unconfirmed or self.current
        self.current = session
        self.next = {}
        return self._wiped(former)

    def responded(self, session: Session, carrier: CarrierName) -> list[Session]:
        """Add a session that the initiator has not confirmed yet."""
        former = self.all()
        self.previous = None
        self.next[carrier] = session
        return self._wiped(former)

    def confirm(self, session: Session) -> list[Session] | None:
        """Note that data arrived on `session`, which confirms a next; return the sessions dropped.

        Returns None, and changes nothing, if `session` is not a next.
        """
        carrier = next((carrier for carrier, waiting in self.next.items() if waiting is session), None)
        if carrier is None:
            return None
        if self.current is not None and not self.current.initiator and session.created < self.current.created:
            del self.next[carrier]
            return self._add_late(session)
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

    def _add_late(self, session: Session) -> list[Session]:
        former = self.all()
        self.previous = session
        return self._wiped(former)

    def _wiped(self, former: list[Session]) -> list[Session]:
        kept = self.all()
        dropped = [session for session in former if not any(session is other for other in kept)]
        for session in dropped:
            session.wipe()
        return dropped
