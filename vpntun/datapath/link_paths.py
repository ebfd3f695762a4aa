"""Paths of the links on this host: by which route, and from which address, packets leave for each peer.

    a peer has moved       the loop guard and core/outer_paths.py follow its new endpoint
    the network changed    the routes to all peers are looked at again, a few links in each turn of the loop, and each
                           link whose packets take another route now measures its path again

A turn looks at few links, so that packets do not wait while the routes to a thousand peers are looked up.
"""

from __future__ import annotations

from collections.abc import Iterable

from vpntun.core.endpoint import Endpoint
from vpntun.core.outer_paths import OuterNetwork, OuterPaths, Rerouting
from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop

ROUTES_PER_TURN = 50
"""Links whose routes are looked at in one turn, at some 20 us each."""


class LinkPaths:
    """Paths of one device's links. `network`: this host's routes. `guard`: the loop guard, which follows them too."""

    def __init__(self, loop: Loop, network: OuterNetwork, guard: LoopGuard) -> None:
        self._loop = loop
        self._guard = guard
        self._paths = OuterPaths(network)
        self._followed: dict[Link, Endpoint | None] = {}
        self._unchecked: dict[Link, None] = {}

    def settle(self, endpoint: Endpoint) -> None:
        """Choose the source address of a candidate, as OuterPaths.settle."""
        self._paths.settle(endpoint)

    def follow(self, link: Link) -> None:
        """Follow a link's endpoint, which may be another one now."""
        self._followed[link] = link.endpoint
        self._guard.follow(link)
        if link.endpoint is not None:
            self._paths.follow(link, link.endpoint)

    def follow_another(self, link: Link) -> None:
        """Follow a link's endpoint if it is another one than that which is followed already."""
        if link.endpoint is not self._followed.get(link):
            self.follow(link)

    def look_again(self, links: Iterable[Link]) -> None:
        """Look, a few links a turn, whether packets to the peers take other routes now."""
        is_looking = bool(self._unchecked)
        self._unchecked |= dict.fromkeys(links)
        if not is_looking:
            self._look_at_some()

    def forget(self, link: Link) -> None:
        """Forget a removed link."""
        self._guard.forget(link)
        self._paths.forget(link)
        self._followed.pop(link, None)
        self._unchecked.pop(link, None)

    def _look_at_some(self) -> None:
        try:
            for link in list(self._unchecked)[:ROUTES_PER_TURN]:
                del self._unchecked[link]
                rerouting = self._paths.look_again(link, link.destinations)
                if rerouting is not Rerouting.NONE:
                    link.rerouted(lost=rerouting is Rerouting.LOST)
        finally:  # a bug in one look must not end the others
            if self._unchecked:
                self._loop.call_later(0.0, self._look_at_some)
