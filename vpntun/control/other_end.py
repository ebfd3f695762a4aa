"""Examinations of both ends: this tunnel asks a peer inside the tunnel for its half, and tells peers its own.

    POST /v1/examine     ask ?peer= for its half; the answer has the number by which to fetch it
    GET  /v1/examined    the half of ?id=, once it has come

The control socket cannot wait for a peer, so its client asks again until the half has come.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from vpntun.config.peer import find_peer
from vpntun.control.own_facts import own_facts
from vpntun.control.reset import refusal_because
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.doctor.host import KernelHost
from vpntun.doctor.inside.half import MOST_NETWORKS, Examiner
from vpntun.doctor.program import program_facts
from vpntun.errors import AmbiguousPeer, CannotAsk, NoSuchPeer
from vpntun.link.link import Link
from vpntun.serving.http import Answer, Route, refusal
from vpntun.wire.inside.request import DOCTOR

MOST_KEPT = 32
"""Questions of this end whose answers are kept."""


class OtherEnds:
    """The questions of this tunnel to its peers, with their answers, and its own answers to peers."""

    def __init__(self, state: TunnelState) -> None:
        self._state = state
        self._examiner = Examiner(KernelHost())
        self._numbers = itertools.count(1)
        self._asked: dict[int, dict[str, Any]] = {}
        program_facts()  # while this process is root

    def routes(self) -> dict[str, Route]:
        """Return the routes of the requests."""
        return {
            "/v1/examine": Route("POST", self._examine, frozenset({"peer"})),
            "/v1/examined": Route("GET", self._examined, frozenset({"id"})),
        }

    def answer(self, link: Link, asked: dict[str, Any]) -> Mapping[str, Any] | None:
        """Return this end's half for a peer, as engine.answers."""
        status = self._state.status_of_peer(link.peer.public)
        if not status["peers"]:
            return {"refused": "this peer is being removed"}
        return self._examiner.answer(link, asked, status, own_facts(self._state))

    def _examine(self, peer: str | None = None) -> Answer:
        state = self._state
        try:
            settings = find_peer(state.tunnel.peers, peer)
            number = next(self._numbers)
            asked_at = round(time.time(), 3)
            question = {"time": asked_at, "networks": self._networks(settings.public)}
            state.link_of(settings.public).ask(DOCTOR, question, lambda answer: self._note(number, answer))
        except (AmbiguousPeer, CannotAsk, NoSuchPeer) as error:
            return refusal_because(error)
        self._asked[number] = {"id": number, "state": "asked", "asked": asked_at, "answered": None, "answer": None}
        if len(self._asked) > MOST_KEPT:
            del self._asked[next(iter(self._asked))]
        return Answer(HTTPStatus.ACCEPTED, {"id": number, "public_key": format_key(settings.public)})

    def _note(self, number: int, answer: dict[str, Any] | None) -> None:
        if number in self._asked:
            state = "silent" if answer is None else "answered"
            self._asked[number] |= {"state": state, "answered": round(time.time(), 3), "answer": answer}

    def _examined(self, id: str = "") -> Answer:
        with suppress(ValueError):
            if (found := self._asked.get(int(id))) is not None:
                return Answer(HTTPStatus.OK, found)
        return refusal(HTTPStatus.NOT_FOUND, "nothing was asked under this id, or its answer was kept long enough")

    def _networks(self, public: bytes) -> list[str]:
        """Return the networks that this end routes to a peer."""
        tunnel = self._state.tunnel
        (peer,) = (each for each in tunnel.peers if each.public == public)
        networks = list(peer.allowed) if tunnel.routing.table != "off" else []
        if len(tunnel.peers) == 1:
            networks += tunnel.routes
        return [str(each) for each in networks[:MOST_NETWORKS]]
