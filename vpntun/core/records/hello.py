"""HELLO with one peer, session after session: who says it when, and what the peer takes right now.

    event                                        HELLO goes out
    a session is confirmed                       at once
    the peer's HELLO lacks "seen yours"          at once, at most 3 times a session; then with traffic, once a second
    none of the peer's was heard                 with traffic: after 1 s, then doubling to 16 s
    the peer's HELLO has "seen yours"            no more

Each end repeats its own until it has heard the other's; so no end needs to know whether its own arrived. To a peer that
is a plain WireGuard that is a handful of records a session, which it drops.

What the peer takes is what it said in this session, or since this one began in another: two ends that have asked each
other at the same time seal with different sessions, each with its own. Before that, for the session's first second, it
is what it said in the one before, so that a rekey does not fall back to single packets. A HELLO whose largest record
holds no ordinary packet takes nothing.

A session is known here by any hashable, mostly its object. Times are seconds of the caller's monotonic clock.
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
"""Bytes of record below which a peer's "largest record" is of no use: it holds no bundle of an ordinary packet."""

MOST_SESSIONS = 4
"""As many as a peer has at a time: previous, current, and a next for each carrier."""


class HelloExchange:
    """The HELLOs of one peer. `takes` is a sum of record.TAKES_*, `largest` the longest record taken, in bytes."""

    def __init__(self, takes: int, largest: int = LARGEST_RECORD) -> None:
        self._takes = takes
        self._largest = largest
        self._sessions: dict[Hashable, _SessionHello] = {}

    def confirmed(self, session: Hashable, now: float) -> bool:
        """The session is confirmed both ways. Whether to send a HELLO in it now: yes, the first time."""
        talk = self._talk(session, now)
        if talk.said:
            return False
        self._say(talk, now)
        return True

    def received(self, session: Hashable, hello: Hello, now: float) -> bool:
        """The peer's HELLO came in this session. Whether to answer now."""
        talk = self._talk(session, now)
        talk.heard = hello
        talk.due = NEVER
        for other in self._sessions.values():
            if other.heard is None:
                other.heard = hello
                other.due = NEVER
        if hello.seen_yours:
            return False
        if talk.answers >= ANSWERS_AT_ONCE:
            talk.due = max(now, talk.said_at + SHORTEST_PAUSE)
            return False
        talk.answers += 1
        self._say(talk, now)
        return True

    def on_traffic(self, session: Hashable, now: float) -> bool:
        """Packets were sent, came or wait in this session. Whether to send a HELLO now. Mostly one comparison."""
        talk = self._sessions.get(session)
        if talk is None or now < talk.due:
            return False
        self._say(talk, now)
        return True

    def due(self, session: Hashable) -> float:
        """From when on `on_traffic` says yes; NEVER if not at all. For who lets packets wait for a HELLO."""
        talk = self._sessions.get(session)
        return NEVER if talk is None else talk.due

    def hello(self, session: Hashable) -> Hello:
        """The HELLO to send in this session."""
        talk = self._sessions.get(session)
        return Hello(talk is not None and talk.heard is not None, self._takes, self._largest)

    def taken(self, session: Hashable, now: float) -> Hello | None:
        """What the peer takes in this session right now; None: treat it as a plain WireGuard."""
        talk = self._sessions.get(session)
        if talk is None:
            return None
        hello = talk.heard
        if hello is None:
            hello = talk.inherited if now < talk.inherited_until else None
        return hello if hello is not None and hello.largest >= SMALLEST_LARGEST else None

    def taken_until(self, session: Hashable, now: float) -> float:
        """When the answer of `taken` ends by itself; NEVER where only an event changes it."""
        talk = self._sessions.get(session)
        if talk is None or talk.heard is not None or talk.inherited is None or now >= talk.inherited_until:
            return NEVER
        return talk.inherited_until

    def _talk(self, session: Hashable, now: float) -> _SessionHello:
        talk = self._sessions.get(session)
        if talk is None:
            last = next(reversed(self._sessions.values()), None)
            talk = self._sessions[session] = _SessionHello(now)
            if last is not None:
                talk.inherited = last.heard or (last.inherited if now < last.inherited_until else None)
            if len(self._sessions) > MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        return talk

    @staticmethod
    def _say(talk: _SessionHello, now: float) -> None:
        talk.said = True
        talk.said_at = now
        if talk.heard is not None:
            talk.due = NEVER
        else:
            talk.due = now + talk.pause
            talk.pause = min(LONGEST_PAUSE, 2 * talk.pause)


class _SessionHello:
    """One session's: what was said and heard in it."""

    __slots__ = ("answers", "due", "heard", "inherited", "inherited_until", "pause", "said", "said_at")

    def __init__(self, now: float) -> None:
        self.heard: Hello | None = None
        self.inherited: Hello | None = None
        self.inherited_until = now + INHERITED_FOR
        self.said = False
        self.said_at = -NEVER
        self.answers = 0
        self.pause = SHORTEST_PAUSE
        self.due = NEVER
