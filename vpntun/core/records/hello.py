"""HELLOs exchanged with one peer: when to send one, and what the peer takes now.

    event                                      a HELLO is sent
    a session is confirmed                     at once
    the peer's HELLO lacks "seen yours"        at once, at most 3 times a session; then with traffic, once a second
    no HELLO of the peer has come              with traffic: after 1 s, then doubling to 16 s
    the peer's HELLO has "seen yours"          no more
    5 HELLOs stayed unanswered                 with traffic: one in 4 hours, and one when the peer's host changes

Each end repeats its own HELLO until the other's comes, so neither needs to know whether its own has arrived. A plain
WireGuard drops each as an error. So unanswered HELLOs are counted, over all sessions, and after five the peer is taken
for one. A HELLO counts only if something has arrived from the peer since, because an outage may have lost it. A HELLO,
REPORT, PROBE or ECHO from the peer starts the count again: a vpntun that replaces a plain WireGuard sends its own
HELLO, and an end that missed it sees that the others come. In shared-key mode, where the peer is known to be a vpntun,
it is never taken for a WireGuard.

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
MOST_UNANSWERED = 5
SECONDS_BETWEEN_LATER = 4 * 3600.0
"""Pause between HELLOs to a peer that seems to be a plain WireGuard."""
INHERITED_FOR = 1.0
SMALLEST_LARGEST = 1600
"""Bytes of record below which a peer's "largest record" is of no use: no bundle of an ordinary packet fits."""

MOST_SESSIONS = 4
"""Sessions that a peer can have at a time: previous, current, and a next for each carrier."""


class HelloExchange:
    """The HELLOs of one peer.

    `takes` is a sum of record.TAKES_*, `largest` the longest record taken, in bytes. `peer_is_vpntun`: the peer is
    known to be one, so HELLO is repeated until it answers. `is_tap`: this end's device carries Ethernet frames.
    """

    def __init__(
        self, takes: int, largest: int = LARGEST_RECORD, *, peer_is_vpntun: bool = False, is_tap: bool = False
    ) -> None:
        self._takes = takes
        self._is_tap = is_tap
        self._largest = largest
        self._peer_is_vpntun = peer_is_vpntun
        self._sessions: dict[Hashable, _SessionHello] = {}
        self._unanswered = 0
        self._asked_at = -NEVER
        self._heard_when_asked: tuple[Hashable, int] | None = None
        """The session and its greatest counter received when the last HELLO was sent; None if that has been counted."""
        self._host: Hashable = None

    def confirmed(self, session: Hashable, now: float, highest: int = -1) -> bool:
        """Note that the session is confirmed both ways. Return whether to send a HELLO now, which is the usual case.

        `highest`: the greatest counter received in it: at the responder that of the message that has confirmed it.
        """
        exchange = self._exchange(session, now)
        if exchange.is_begun:
            return False
        exchange.is_begun = True
        return self._may_send(exchange, (session, highest), now)

    def moved(self, host: Hashable, now: float) -> None:
        """Note that the peer is at this host now: another one deserves another HELLO."""
        if host != self._host:
            self._host = host
            if self.seems_plain:
                self._ask_again(now)

    def recognised(self, now: float) -> None:
        """Note that a REPORT, PROBE or ECHO has come, which only a vpntun sends."""
        if self.seems_plain:
            self._ask_again(now)
        self._answered()

    def received(self, session: Hashable, hello: Hello, now: float) -> bool:
        """Note that the peer's HELLO came in this session. Return whether to answer now."""
        self._answered()
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

    def on_traffic(self, session: Hashable, now: float, highest: int = -1) -> bool:
        """Return whether to send a HELLO now: packets were sent, came or wait in this session.

        `highest`: the greatest counter received in it, -1 for none. The usual cost is one comparison.
        """
        exchange = self._sessions.get(session)
        if exchange is None or now < exchange.due:
            return False
        return self._may_send(exchange, (session, highest), now)

    def due(self, session: Hashable) -> float:
        """When `on_traffic` begins to return True; NEVER if not at all. For callers that let packets wait."""
        exchange = self._sessions.get(session)
        return NEVER if exchange is None else exchange.due

    def hello(self, session: Hashable) -> Hello:
        """Return the HELLO to send in this session."""
        exchange = self._sessions.get(session)
        seen = exchange is not None and exchange.received is not None
        return Hello(seen, self._takes, self._largest, answers=True, is_tap=self._is_tap)

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

    @property
    def seems_plain(self) -> bool:
        """Whether the peer seems to be a plain WireGuard."""
        return self._unanswered >= MOST_UNANSWERED and not self._peer_is_vpntun

    def _may_send(self, exchange: _SessionHello, heard: tuple[Hashable, int], now: float) -> bool:
        """Return whether a HELLO that is due is sent, and set when the next one is due.

        `heard`: the session, and its greatest counter received.
        """
        if exchange.received is not None:
            exchange.note_sent(now)
            return True
        if self._heard_when_asked is not None and self._heard_when_asked != heard:
            self._unanswered += 1
            self._heard_when_asked = None
        if self.seems_plain and now < self._asked_at + SECONDS_BETWEEN_LATER:
            exchange.due = self._asked_at + SECONDS_BETWEEN_LATER
            return False
        self._asked_at = now
        self._heard_when_asked = heard
        exchange.note_sent(now)
        return True

    def _answered(self) -> None:
        self._unanswered = 0
        self._heard_when_asked = None

    def _ask_again(self, now: float) -> None:
        """Let the next traffic, or the next session, send a HELLO."""
        self._asked_at = -NEVER
        for exchange in self._sessions.values():
            if exchange.received is None:
                exchange.due = min(exchange.due, now)

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

    __slots__ = ("answers", "due", "inherited", "inherited_until", "is_begun", "pause", "received", "sent_at")

    def __init__(self, now: float) -> None:
        self.received: Hello | None = None
        self.inherited: Hello | None = None
        self.inherited_until = now + INHERITED_FOR
        self.is_begun = False
        self.sent_at = -NEVER
        self.answers = 0
        self.pause = SHORTEST_PAUSE
        self.due = NEVER

    def note_sent(self, now: float) -> None:
        """Note that a HELLO is sent, and when to repeat it."""
        self.is_begun = True
        self.sent_at = now
        if self.received is not None:
            self.due = NEVER
        else:
            self.due = now + self.pause
            self.pause = min(LONGEST_PAUSE, 2 * self.pause)
