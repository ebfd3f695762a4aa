"""Permission of peers to use their services, which is asked for by name, and kept for a while.

1. The peer of this name is asked, if this end has one. Otherwise its hubs are, which know more peers: those that this
   end calls, or its only peer. In ssh@desk@office the hub is named: "office" is asked for its peer "desk".
2. A permission has a token, and addresses in the tunnel. Of these only those count that lead to the peer which was
   asked, by the allowed IPs; so no peer can send this end to another one's addresses.

All who ask for the same permission meanwhile wait for the same answer. It is kept for SECONDS_KEPT. A refusal is kept
for SECONDS_REFUSED, so that a program which tries again and again does not use up what peers answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from vpntun.config.forwards import ServiceName
from vpntun.config.peer import PeerSettings
from vpntun.errors import BadPacket, NoSuchPeer, VpntunError
from vpntun.runtime.loop import Loop
from vpntun.services.neighbours import SUBJECT, Neighbours, told_of
from vpntun.types import NEVER
from vpntun.wire.inside.services import Asked, Grant, refusal_in

SECONDS_KEPT = 300.0
SECONDS_REFUSED = 2.0
SECONDS_TO_ASK = 5.0
"""How long a question may wait until its peer can be asked."""
MOST_HUBS = 8

OnGranted = Callable[[Grant], None]
OnRefused = Callable[[str], None]


@dataclass
class _Service:
    """What is known of a service. `asked`: number of peers whose answers are awaited; `reasons`: of their refusals."""

    grant: Grant | None = None
    until: float = -NEVER
    asked: int = 0
    reasons: list[str] = field(default_factory=list)
    waiting: list[tuple[OnGranted, OnRefused]] = field(default_factory=list)


class Granted:
    """The permissions that peers have given this end."""

    def __init__(self, loop: Loop, neighbours: Neighbours) -> None:
        self._loop = loop
        self._neighbours = neighbours
        self._services: dict[ServiceName, _Service] = {}

    def known(self, name: ServiceName) -> Grant | None:
        """Return the permission that is kept for a service, if there is one."""
        service = self._services.get(name)
        return service.grant if service is not None and self._loop.now < service.until else None

    def ask(
        self, name: ServiceName, on_granted: OnGranted, on_refused: OnRefused, *, stale: Grant | None = None
    ) -> None:
        """Ask for permission to use a service; the loop calls one of the two. `stale`: one that is of no use."""
        service = self._services.setdefault(name, _Service())
        kept = self.known(name)
        if kept is not None and kept is not stale:
            self._loop.call_later(0.0, partial(on_granted, kept))
            return
        service.waiting.append((on_granted, on_refused))
        if service.asked or len(service.waiting) > 1:
            return
        if service.grant is None and self._loop.now < service.until:
            self._loop.call_later(0.0, partial(self._refuse, service))
            return
        service.grant, service.until, service.reasons = None, -NEVER, []
        try:
            questions = self._questions(name)
        except VpntunError as error:
            service.reasons.append(str(error))
            service.until = self._loop.now + SECONDS_REFUSED
            self._loop.call_later(0.0, partial(self._refuse, service))
            return
        service.asked = len(questions)
        for peer, asked in questions:
            take = partial(self._take, service, peer)
            self._neighbours.ask(peer, asked, partial(self._answered, service, peer), take, SECONDS_TO_ASK)

    def forget(self) -> None:
        """Ask again for whatever is used next: settings have changed."""
        for service in self._services.values():
            service.grant, service.until = None, -NEVER

    def _questions(self, name: ServiceName) -> list[tuple[PeerSettings, Asked]]:
        """Return whom to ask what. Raises NoSuchPeer or AmbiguousPeer."""
        try:
            return [(self._neighbours.called(name.peer), Asked(name.service))]
        except NoSuchPeer:
            peer, at, hub = name.peer.rpartition("@")
            if at and hub:
                return [(self._neighbours.called(hub), Asked(name.service, peer))]
            hubs = [each for each in self._neighbours if each.host is not None or len(self._neighbours) == 1]
            if not hubs or not name.peer:
                raise
            return [(each, Asked(name.service, name.peer)) for each in hubs[:MOST_HUBS]]

    def _answered(self, service: _Service, peer: PeerSettings, answer: dict[str, Any]) -> None:
        self._take(service, peer, self._permission(peer, answer))

    def _take(self, service: _Service, peer: PeerSettings, found: Grant | str) -> None:
        """Take the first permission that comes, or note the reason of a refusal; once all have refused, give up."""
        service.asked -= 1
        if service.grant is None:
            if isinstance(found, Grant):
                service.grant, service.until = found, self._loop.now + SECONDS_KEPT
                for on_granted, _ in _taken(service.waiting):
                    on_granted(found)
            else:
                service.reasons.append(self._reason(peer, found))
        if service.grant is None and not service.asked:
            service.until = self._loop.now + SECONDS_REFUSED
            self._refuse(service)

    def _permission(self, peer: PeerSettings, answer: dict[str, Any]) -> Grant | str:
        """Return the permission in an answer, or why there is none."""
        if (reason := refusal_in(answer)) is not None:
            return reason
        try:
            grant = Grant.parse(answer)
        except BadPacket:
            return "it has answered in a way that this end does not understand"
        places = tuple(place for place in grant.places if self._neighbours.leads_to(place[0], peer))
        if not places:
            return f"the service is at {grant.places[0][0]}, which is not in this end's AllowedIPs of that peer"
        return Grant(places, grant.token, grant.needs_key)

    def _reason(self, peer: PeerSettings, reason: str) -> str:
        """Return a reason with the peer as its subject. That of another peer, which a hub passes on, names its own."""
        is_only = len(self._neighbours) == 1
        if is_only and not reason.startswith(SUBJECT):
            return reason
        return told_of(peer.name or ("the peer" if is_only else self._neighbours.name_of(peer.public)), reason)

    def _refuse(self, service: _Service) -> None:
        for _, on_refused in _taken(service.waiting):
            on_refused("; ".join(service.reasons))


def _taken(waiting: list[tuple[OnGranted, OnRefused]]) -> list[tuple[OnGranted, OnRefused]]:
    """Return those who wait, and let nobody wait any more."""
    taken = waiting[:]
    waiting.clear()
    return taken
