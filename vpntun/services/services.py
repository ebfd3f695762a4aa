"""Services of one tunnel: those that this end offers, passes on as a hub, and uses.

A request of a peer (wire/inside/services.py) is answered

    list                                 with own services, and those of other peers
    list, passed on by a hub             with own services alone
    visit without "peer"                 by this end, which offers the service (offering.py)
    visit with "peer"                    by that peer, which is asked (hub.py); never if it was passed on already
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpntun.errors import BadPacket
from vpntun.forwards.connections import Connections
from vpntun.forwards.ways import Ways
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.services.hub import Hub
from vpntun.services.listing import Lists
from vpntun.services.neighbours import Neighbours, refused
from vpntun.services.offering import Offering
from vpntun.services.visiting import Visits
from vpntun.wire.inside.services import Asked, pack_offers


class Services:
    """The services of one tunnel. `ways`: where a peer's connections come from, and where its services are reached.

    `connections`: where visits to this end's services count, beside the connections of forwards.

    offering    what this end offers
    visits      connections to services of peers
    lists       what peers offer this end
    """

    def __init__(self, loop: Loop, neighbours: Neighbours, ways: Ways, connections: Connections) -> None:
        self.offering = Offering(loop, neighbours, ways["peer"], connections)
        self.visits = Visits(loop, neighbours, ways["here"].connecting)
        self.lists = Lists(neighbours)
        self._neighbours = neighbours
        self._hub = Hub(loop, neighbours)

    def answer(self, link: Link, content: dict[str, Any]) -> Mapping[str, Any] | None:
        """Answer a request of a link's peer, as engine.answers; None while it is not ready."""
        try:
            asked = Asked.parse(content)
        except BadPacket:
            return refused("bad request")
        visitor = self._neighbours.visitor(link, asked.asker)
        if asked.service is None:
            offers = self.offering.offers_to(visitor)
            return pack_offers(offers) if asked.asker else self._hub.list_all(link, offers)
        if not asked.peer:
            return self.offering.let_in(asked.service, visitor)
        if asked.asker:
            return refused("what was passed on is not passed on again")
        return self._hub.visit(link, asked)

    def follow_settings(self) -> None:
        """Follow a change of the settings: of services, keys or peers."""
        self.offering.follow_settings()
        self.visits.follow_settings()

    def close(self) -> None:
        """Listen no more, and end all visits to this end's services."""
        self.offering.close()
