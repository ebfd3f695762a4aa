"""Hub: passes on what its peers ask of each other's services, and the answers.

    visit    The peer of this name is asked, and told who asks by the name that this end's file has for it. Of the
             addresses in the answer only those are passed on that lead to this peer, by its allowed IPs.
    list     All peers with a session are asked at once; the answer is what has come after SECONDS_FOR_LIST at the
             latest.

An end that relays no packets between its peers passes on no questions either. A request is answered once the answer has
come, or the limit of time is reached (core/inside/answerer.py). What was passed on already is never passed on again. A
peer may have PASSED_ON_PER_SECOND requests passed on in the long run, so that others have their turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vpntun.config.peer import PeerSettings
from vpntun.core.bucket import TokenBuckets
from vpntun.errors import BadPacket, NoSuchPeer
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.services.neighbours import Neighbours, refused, told_of
from vpntun.wire.inside.services import (
    LONGEST_PEER,
    MOST_OFFERS,
    Asked,
    Grant,
    Offer,
    pack_offers,
    parse_offers,
    refusal_in,
)

PASSED_ON_PER_SECOND, PASSED_ON_AT_ONCE = 0.5, 10
LIST_COUNTS_AS = 3
MOST_ASKED_FOR_LIST = 64
SECONDS_FOR_VISIT, SECONDS_FOR_LIST = 5.0, 3.0
SECONDS_KEPT = 15.0
MOST_QUESTIONS = 512
ADVICE_ON_RELAY = "it does not relay between its peers: a hub needs Relay = yes"


@dataclass
class _Question:
    """What a peer has asked, and its answer once it has come. `awaited`: number of peers that have not answered yet."""

    asker: bytes
    begun: float
    awaited: int = 0
    answer: Mapping[str, Any] | None = None
    offers: list[Offer] = field(default_factory=list)


class Hub:
    """The questions that this end passes on for its peers."""

    def __init__(self, loop: Loop, neighbours: Neighbours) -> None:
        self._loop = loop
        self._neighbours = neighbours
        self._questions: dict[tuple[bytes, Asked], _Question] = {}
        self._limits: TokenBuckets[Link] = TokenBuckets(PASSED_ON_PER_SECOND, PASSED_ON_AT_ONCE)

    def visit(self, link: Link, asked: Asked) -> Mapping[str, Any] | None:
        """Answer a peer that wants to use the service of another one; None while there is no answer."""
        key = link.peer.public, asked
        question = self._questions.get(key)
        if question is None:
            if not self._neighbours.is_hub:
                return refused(ADVICE_ON_RELAY)
            try:
                peer = self._neighbours.named(asked.peer)
            except NoSuchPeer as error:
                return refused(error)
            if not self._may_ask(link, 1):
                return refused("it is asked for other peers' services too often: try again in some seconds")
            question = _Question(link.peer.public, self._loop.now)
            passed_on = Asked(asked.service, "", self._neighbours.name_of(link.peer.public)[:LONGEST_PEER])
            self._questions[key] = question
            answered, failed = partial(self._let_in, question, peer), partial(self._cannot_ask, question, peer)
            self._neighbours.ask(peer, passed_on, answered, failed, SECONDS_FOR_VISIT)
            self._loop.call_later(SECONDS_FOR_VISIT, partial(self._neighbours.answer_again, link.peer.public))
        if question.answer is None and self._loop.now - question.begun >= SECONDS_FOR_VISIT:
            question.answer = refused(f"it gets no answer from {asked.peer}")
        if question.answer is not None:
            del self._questions[key]
        return question.answer

    def list_all(self, link: Link, own: list[Offer]) -> Mapping[str, Any] | None:
        """Answer a peer that asks what it may use; None while answers are awaited. `own`: what this end offers it."""
        key = link.peer.public, Asked()
        question = self._questions.get(key)
        if question is None:
            is_hub = self._neighbours.is_hub
            others = [peer for peer in self._neighbours if is_hub and peer.public != link.peer.public]
            question = _Question(link.peer.public, self._loop.now, offers=list(own))
            if others:
                if not self._may_ask(link, LIST_COUNTS_AS):
                    return refused("it is asked for lists too often: try again in some seconds")
                self._questions[key] = question
                self._ask_all(others[:MOST_ASKED_FOR_LIST], question)
                self._loop.call_later(SECONDS_FOR_LIST, partial(self._neighbours.answer_again, link.peer.public))
        if question.awaited and self._loop.now - question.begun < SECONDS_FOR_LIST:
            return None
        self._questions.pop(key, None)
        return pack_offers(question.offers)

    def _may_ask(self, link: Link, count: int) -> bool:
        """Return whether another question may be passed on for a peer; it counts as so many."""
        now = self._loop.now
        for key in [key for key, each in self._questions.items() if now - each.begun > SECONDS_KEPT]:
            del self._questions[key]
        return len(self._questions) < MOST_QUESTIONS and self._limits.of(link).take(now, count)

    def _cannot_ask(self, question: _Question, peer: PeerSettings, reason: str) -> None:
        question.answer = refused(f"it cannot ask {self._neighbours.name_of(peer.public)}: {reason}")
        self._neighbours.answer_again(question.asker)

    def _let_in(self, question: _Question, peer: PeerSettings, answer: dict[str, Any]) -> None:
        """Note the answer of an offering end to a visitor."""
        name = self._neighbours.name_of(peer.public)
        if (reason := refusal_in(answer)) is not None:
            question.answer = refused(told_of(name, reason))
        else:
            question.answer = self._checked(peer, name, answer)
        self._neighbours.answer_again(question.asker)

    def _checked(self, peer: PeerSettings, name: str, answer: dict[str, Any]) -> Mapping[str, Any]:
        """Return the permission that a peer gives, with those of its addresses that visitors reach through this end."""
        try:
            grant = Grant.parse(answer)
        except BadPacket:
            return refused(f"{name} has answered in a way that this hub does not understand")
        own = [place for place in grant.places if self._neighbours.leads_to(place[0], peer)]
        if not own:
            return refused(f"the AllowedIPs of {name} at the hub do not contain its address {grant.places[0][0]}")
        reached = tuple(place for place in own if self._neighbours.passes_on(place[0]))
        if not reached:
            return refused(ADVICE_ON_RELAY)
        return Grant(reached, grant.token, grant.needs_key).content()

    def _ask_all(self, peers: list[PeerSettings], question: _Question) -> None:
        """Ask peers what they offer the asker; those without a session now are left out."""
        question.awaited = len(peers)
        passed_on = Asked(asker=self._neighbours.name_of(question.asker)[:LONGEST_PEER])
        for peer in peers:
            take = partial(self._take_offers, question, peer)
            self._neighbours.ask(peer, passed_on, take, lambda _: self._note_answer(question))

    def _take_offers(self, question: _Question, peer: PeerSettings, answer: dict[str, Any]) -> None:
        """Note what a peer offers the asker; nothing, if it refuses to say."""
        with suppress(BadPacket):
            name = self._neighbours.name_of(peer.public)[:LONGEST_PEER]
            own = [Offer(each.service, name, each.needs_key) for each in parse_offers(answer) if not each.peer]
            question.offers += own[: max(0, MOST_OFFERS - len(question.offers))]
        self._note_answer(question)

    def _note_answer(self, question: _Question) -> None:
        question.awaited -= 1
        if not question.awaited:
            self._neighbours.answer_again(question.asker)
