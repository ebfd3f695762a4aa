"""Services that this end offers: who may use which, and by what token.

    list     the services that the visitor may use, if it has the key of those that need one
    visit    a token, and where to show it (entrance.py)

A visitor learns nothing of services that it may not use: they are refused in the words for those that do not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpntun.config.forwards import spelled
from vpntun.config.services import Service
from vpntun.forwards.connections import Connections
from vpntun.forwards.ways import Way
from vpntun.runtime.loop import Loop
from vpntun.services.entrance import Entrance
from vpntun.services.neighbours import Neighbours, Visitor, refused
from vpntun.services.permissions import Permissions
from vpntun.wire.inside.services import MOST_PLACES, Grant, Offer


class Offering:
    """What this end offers its peers. `way`: where they come from, and where the services are."""

    def __init__(self, loop: Loop, neighbours: Neighbours, way: Way, connections: Connections) -> None:
        self._loop = loop
        self._neighbours = neighbours
        self._permissions = Permissions()
        self._entrance = Entrance(loop, way, self._permissions, self._offered, connections)

    def offers_to(self, visitor: Visitor) -> list[Offer]:
        """Return the services that a visitor may use."""
        offered = self._neighbours.services.offered
        return [Offer(each.name, "", each.key is not None) for each in offered if each.permits(*visitor.names)]

    def let_in(self, name: str, visitor: Visitor) -> Mapping[str, Any]:
        """Return the answer to a visitor that wants to use a service: a token, or a refusal."""
        service = self._offered(name, visitor.names)
        if service is None:
            return refused(f"it offers no service {name} to {visitor}")
        try:
            places = self._entrance.places()[:MOST_PLACES]
        except OSError as error:
            return refused(f"it cannot listen on its addresses in the tunnel: {error.strerror or error}")
        if not places:
            return refused("it has no address in the tunnel")
        token = self._permissions.give(name, visitor, self._loop.now)
        return Grant(places, token, service.key is not None).content()

    def follow_settings(self) -> None:
        """Take back the permissions of peers that are gone, and listen no more if nothing is offered any more."""
        self._permissions.keep({peer.public for peer in self._neighbours})
        if not self._neighbours.services.offered:
            self._entrance.shut()

    def status(self) -> list[dict[str, Any]]:
        """Describe the services, without their keys."""
        return [self._described(each) for each in self._neighbours.services.offered]

    def close(self) -> None:
        """Listen no more, and end all visits."""
        self._entrance.close()

    def _offered(self, name: str, names: tuple[str, ...]) -> Service | None:
        """Return a service, if it is offered to a visitor of one of these names."""
        offered = (each for each in self._neighbours.services.offered if each.name == name)
        return next((each for each in offered if each.permits(*names)), None)

    def _described(self, service: Service) -> dict[str, Any]:
        counters = self._entrance.counters_of(service.name)
        return {
            "service": service.name,
            "target": spelled(service.target),
            "key": service.key is not None,
            "allowed": list(service.allowed),
            "connections": counters.connections,
            "connections_total": counters.total,
            "connections_refused": counters.refused,
        }
