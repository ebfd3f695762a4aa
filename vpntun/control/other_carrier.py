"""Trials, on request, of the carrier that a link does not use (`vpntun doctor`).

    POST /v1/try      begin a trial for ?peer=, unless one began less than ten seconds ago
    GET  /v1/tried    report how that trial, or the last one, has ended

The control socket cannot wait for a peer, so its client asks again until the trial has ended.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from vpntun.config.peer import PeerSettings, find_peer
from vpntun.control.reset import refusal_because
from vpntun.control.state import TunnelState
from vpntun.crypto.keys import format_key
from vpntun.errors import AmbiguousPeer, CannotTry, NoSuchPeer
from vpntun.link.client_link import ClientLink
from vpntun.serving.http import Answer, Route


class OtherCarriers:
    """Answers to requests about the carriers that the links of one tunnel do not use."""

    def __init__(self, state: TunnelState) -> None:
        self._state = state

    def routes(self) -> dict[str, Route]:
        """Return the routes of the requests."""
        return {
            "/v1/try": Route("POST", self._begin, frozenset({"peer"})),
            "/v1/tried": Route("GET", self._report, frozenset({"peer"})),
        }

    def _begin(self, peer: str | None = None) -> Answer:
        return self._answer(peer, begins=True)

    def _report(self, peer: str | None = None) -> Answer:
        return self._answer(peer, begins=False)

    def _answer(self, called: str | None, *, begins: bool) -> Answer:
        try:
            settings = find_peer(self._state.tunnel.peers, called)
            link = self._state.link_of(settings.public)
            if not isinstance(link, ClientLink):
                raise CannotTry("the peer calls this end, and chooses the carrier: have it tried at the other end")
            if begins:
                link.try_other_carrier()
        except (AmbiguousPeer, CannotTry, NoSuchPeer) as error:
            return refusal_because(error)
        return Answer(HTTPStatus.ACCEPTED if begins else HTTPStatus.OK, report(settings, link))


def report(settings: PeerSettings, link: ClientLink) -> dict[str, Any]:
    """Return what is known of a link's trial."""
    known: dict[str, Any] = {"public_key": format_key(settings.public), "name": settings.name}
    trial = link.trial
    if trial is None:
        return known | {"state": "none"}
    return known | {
        "state": trial.outcome or "trying",
        "carrier": trial.carrier,
        "used": trial.used,
        "endpoint": trial.where,
        "round_trip": round(trial.round_trip, 6) or None,
        "age": int(link.now - trial.began),
    }
