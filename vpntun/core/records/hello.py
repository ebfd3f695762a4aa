"""HELLOs exchanged with one peer: when to send one, and what the peer takes now.

    event                                      a HELLO is sent
    a session is confirmed                     at once
    the peer's HELLO lacks "seen yours"        at once, at most 3 times a session; then with traffic, once a second
    no HELLO of the peer has come              with traffic: after 1 s, then doubling to 16 s
    the peer's HELLO has "seen yours"          no more

Each end repeats its own HELLO until the other's comes, so neither needs to know whether its own has arrived. A plain
WireGuard peer gets a handful of records a session, which it drops.

The peer takes what it announced in this session or, since this session began, in another: two ends that have started
handshakes at the same time seal with different sessions, each with its own. Until a HELLO comes, the one from the
session before holds for this session's first second, so that a rekey does not fall back to single packets. A HELLO
whose largest record holds no ordinary packet takes nothing.

A session is known here by any hashable, such as its object. Times are seconds of the caller's clock.
Source: the design, "Records between two vpntuns".
"""

from __future__ import annotations

from collections.abc import Hashable

from vpntun.types import NEVER
from vpntun.wire.record import LARGEST_RECORD, Hello

ANSWERS_AT_ONCE = 3
SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 16.0
INHERITED_FOR = 1.0
SMALLEST_LARGEST = 1600
"""Bytes of record below which a peer's "largest record" is of no use: no bundle of an ordinary packet fits."""

MOST_SESSIONS = 4
"""Sessions that a peer can have at a time: previous, current, and a next for each carrier."""


class HelloExchange:
    """The HELLOs of one peer. `takes` is a sum of record.TAKES_*, `largest` the longest record taken, in bytes."""

    def __init__(self, takes: int, largest: int = LARGEST_RECORD) -> None:
        self._takes = takes
        self._largest = largest
        self._sessions: dict[Hashable, _SessionHello] = {}

    def confirmed(self, session: Hashable, now: float) -> bool:
        """Note that the session is confirmed both ways. Return whether to send a HELLO now: yes, the first time."""
        exchange = self._exchange(session, now)
        if exchange.is_sent:
            return False
        exchange.note_sent(now)
        return True

    def received(self, session: Hashable, hello: Hello, now: float) -> bool:
        """Note that the peer's HELLO came in this session. Return whether to answer now."""
        exchange = self._exchange(session, now)
        exchange.received = hello
        exchange.due = NEVER
        for other in self._sessions.values():
            if other.received is None:
                other.received = hello
                other.due = NEVER
        if hello.seen_yours:
            return False
        if exchange.answers >= ANSWERS_AT_ONCE:
            exchange.due = max(now, exchange.sent_at + SHORTEST_PAUSE)
            return False
        exchange.answers += 1
        exchange.note_sent(now)
        return True

    def on_traffic(self, session: Hashable, now: float) -> bool:
        """Return whether to send a HELLO now: packets were sent, came or wait in this session.

        The usual cost is one comparison.
        """
        exchange = self._sessions.get(session)
        if exchange is None or now < exchange.due:
            return False
        exchange.note_sent(now)
        return True

    def due(self, session: Hashable) -> float:
        """When `on_traffic` begins to return True; NEVER if not at all. For callers that let packets wait."""
        exchange = self._sessions.get(session)
        return NEVER if exchange is None else exchange.due

    def hello(self, session: Hashable) -> Hello:
        """Return the HELLO to send in this session."""
        exchange = self._sessions.get(session)
        return Hello(exchange is not None and exchange.received is not None, self._takes, self._largest)

    def taken(self, session: Hashable, now: float) -> Hello | None:
        """Return what the peer takes in this session now; None to treat it as a plain WireGuard."""
        exchange = self._sessions.get(session)
        if exchange is None:
            return None
        hello = exchange.received
        if hello is None:
            hello = exchange.inherited if now < exchange.inherited_until else None
        return hello if hello is not None and hello.largest >= SMALLEST_LARGEST else None

    def taken_until(self, session: Hashable, now: float) -> float:
        """When the answer of `taken` changes as time passes; NEVER if only an event changes it."""
        exchange = self._sessions.get(session)
        if (
            exchange is None
            or exchange.received is not None
            or exchange.inherited is None
            or now >= exchange.inherited_until
        ):
            return NEVER
        return exchange.inherited_until

    def _exchange(self, session: Hashable, now: float) -> _SessionHello:
        exchange = self._sessions.get(session)
        if exchange is None:
            last = next(reversed(self._sessions.values()), None)
            exchange = self._sessions[session] = _SessionHello(now)
            if last is not None:
                exchange.inherited = last.received or (last.inherited if now < last.inherited_until else None)
            if len(self._sessions) > MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return exchange


class _SessionHello:
    """HELLOs sent and received in one session."""

    __slots__ = ("answers", "due", "inherited", "inherited_until", "is_sent", "pause", "received", "sent_at")

    def __init__(self, now: float) -> None:
        self.received: Hello | None = None
        self.inherited: Hello | None = None
        self.inherited_until = now + INHERITED_FOR
        self.is_sent = False
        self.sent_at = -NEVER
        self.answers = 0
        self.pause = SHORTEST_PAUSE
        self.due = NEVER

    def note_sent(self, now: float) -> None:
        """Note that a HELLO is sent, and when to repeat it."""
        self.is_sent = True
        self.sent_at = now
        if self.received is not None:
            self.due = NEVER
        else:
            self.due = now + self.pause
            self.pause = min(LONGEST_PAUSE, 2 * self.pause)
