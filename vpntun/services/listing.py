"""Lists of the services that peers offer this end: all connected peers are asked, and hubs answer for others, too.

An answer takes a round trip, or some seconds if a hub asks others. The command polls for the list meanwhile.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

from vpntun.config.forwards import ServiceName
from vpntun.config.peer import PeerSettings
from vpntun.errors import BadPacket
from vpntun.services.neighbours import Neighbours
from vpntun.wire.inside.services import Asked, parse_offers, refusal_in

MOST_KEPT = 16
MOST_ASKED = 64
SECONDS_TO_ASK = 2.0
"""How long a link without a session may take to get one."""


class Lists:
    """The lists that were asked for."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._numbers = itertools.count(1)
        self._lists: dict[int, _List] = {}

    def begin(self) -> int:
        """Ask the peers; return the number of the list."""
        number = next(self._numbers)
        self._lists[number] = _List(self._neighbours)
        if len(self._lists) > MOST_KEPT:
            del self._lists[next(iter(self._lists))]
        return number

    def report(self, number: int) -> dict[str, Any] | None:
        """Return what has come so far; None for a number of no list, or of one that was kept long enough."""
        return self._lists[number].report() if number in self._lists else None


class _List:
    """What the peers have answered to one question."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._awaited = 0
        self._services: dict[str, dict[str, Any]] = {}
        self._without: list[dict[str, str]] = []
        for peer in itertools.islice(neighbours, MOST_ASKED):
            self._awaited += 1
            neighbours.ask(peer, Asked(), partial(self._answered, peer), partial(self._failed, peer), SECONDS_TO_ASK)

    def report(self) -> dict[str, Any]:
        """Return the list: its state, the services, and the peers that have none to tell, with the reasons."""
        return {
            "state": "asked" if self._awaited else "answered",
            "services": sorted(self._services.values(), key=lambda each: (each["peer"], each["service"])),
            "without": self._without,
        }

    def _failed(self, peer: PeerSettings, reason: str) -> None:
        self._awaited -= 1
        self._note(peer, reason)

    def _answered(self, peer: PeerSettings, answer: dict[str, Any]) -> None:
        self._awaited -= 1
        if (reason := refusal_in(answer)) is not None:
            self._note(peer, reason)
            return
        try:
            offers = parse_offers(answer)
        except BadPacket:
            self._note(peer, "it has answered in a way that this end does not understand")
            return
        own = peer.name if peer.name or len(self._neighbours) == 1 else self._neighbours.name_of(peer.public)
        for offer in offers:
            name = str(ServiceName(offer.service, offer.peer or own))
            self._services.setdefault(
                name,
                {
                    "name": name,
                    "service": offer.service,
                    "peer": offer.peer or own,
                    "key": offer.needs_key,
                    "through": self._neighbours.name_of(peer.public) if offer.peer else None,
                },
            )

    def _note(self, peer: PeerSettings, reason: str) -> None:
        self._without.append({"peer": self._neighbours.name_of(peer.public), "reason": reason})
