"""Paths of the tunnel's own packets on this host: the route and the source address of each endpoint in use.

    new endpoint        where the kernel would send from an address inside a tunnel, another one is chosen
    network changed     each endpoint's route is asked for again. If another device takes its packets, or this host has
                        lost its source address, the source is forgotten: the kernel chooses. So is a source that was
                        chosen here, for want of a better one, once the kernel's own choice is good

The kernel's answers come from an `OuterNetwork` (netconf/following/outer_routes.py). A source address that a peer has
sent to is kept as long as the same device takes the packets from it: the peer, or a firewall before it, may expect that
address.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable
from typing import NamedTuple, Protocol

from vpntun.core.endpoint import Endpoint, Flow


class OuterRoute(NamedTuple):
    """Number of a route's device, its gateway, empty if there is none, and the source address of its packets."""

    device: int
    gateway: bytes
    source: bytes


class OuterNetwork(Protocol):
    """Answers of this host's kernel about packets that are not the tunnel's content but the tunnel itself."""

    def leads_inside(self, flow: Flow) -> bool:
        """Whether the kernel would send a flow into the tunnel."""

    def find(self, flow: Flow) -> OuterRoute | None:
        """Return the route of a flow; None if there is none, or the host does not have the flow's source address."""

    def better_source(self, flow: Flow) -> bytes:
        """Return the address to send a flow from; empty if the kernel's own choice is good, or the only one."""


class UnknownNetwork:
    """A network of which nothing is known."""

    def leads_inside(self, flow: Flow) -> bool:
        """Return False."""
        return False

    def find(self, flow: Flow) -> OuterRoute | None:
        """Return None."""
        return None

    def better_source(self, flow: Flow) -> bytes:
        """Return nothing."""
        return b""


class Rerouting(enum.Enum):
    """Result of a look at an owner's endpoints. LOST: a source address is gone, which a connection cannot survive."""

    NONE = enum.auto()
    OTHER_ROUTE = enum.auto()
    LOST = enum.auto()


class OuterPaths:
    """The paths of every owner, which is a peer. An owner's endpoints are those that it may send to now."""

    def __init__(self, network: OuterNetwork) -> None:
        self._network = network
        self._known: dict[Hashable, dict[bytes, OuterRoute | None]] = {}
        self._chosen: set[bytes] = set()
        """Source addresses that were chosen here, which a later network may make unnecessary."""

    def settle(self, endpoint: Endpoint) -> None:
        """Choose the source address of an endpoint that has none, unless the kernel's choice is good."""
        flow = endpoint.flow
        if not flow.source and (source := self._network.better_source(flow)):
            endpoint.send_from(source)
            self._chosen.add(source)

    def follow(self, owner: Hashable, endpoint: Endpoint) -> None:
        """Settle an owner's new endpoint, and remember its route.

        Where that is known, it may have changed since: `look_again` compares.
        """
        self.settle(endpoint)
        flow = endpoint.flow
        known = self._known.get(owner, {}).get(flow.destination)
        if known is None or flow.source not in (b"", known.source):
            known = self._network.find(flow)
        self._known[owner] = {flow.destination: known}

    def look_again(self, owner: Hashable, endpoints: Iterable[Endpoint]) -> Rerouting:
        """Compare the present routes with the last ones, and remember them.

        A new route, or none at all, does not count as a change.
        """
        before, found = self._known.get(owner, {}), Rerouting.NONE
        now = self._known[owner] = {}
        for endpoint in endpoints:
            flow = endpoint.flow
            last, route = before.get(flow.destination), self._network.find(flow)
            is_misplaced = bool(flow.source) and self._is_misplaced(flow, last, route)
            is_another = route is not None and flow.destination in before and _is_another(flow, last, route)
            if is_misplaced or (route is not None and flow.source in self._chosen):
                endpoint.send_from(b"")
                self.settle(endpoint)
            moves = is_misplaced or endpoint.flow.source != flow.source
            if is_misplaced and route is None:
                found = Rerouting.LOST
            elif (moves or is_another) and found is Rerouting.NONE:
                found = Rerouting.OTHER_ROUTE
            if moves:  # a connection keeps its source, but the next one leaves by the route from another
                route = self._network.find(endpoint.flow) or self._network.find(flow._replace(source=b""))
            now[flow.destination] = route
        return found

    def forget(self, owner: Hashable) -> None:
        """Forget an owner."""
        self._known.pop(owner, None)

    def _is_misplaced(self, flow: Flow, last: OuterRoute | None, route: OuterRoute | None) -> bool:
        """Return whether a flow should leave from another address than its own."""
        if route is None:  # without any route, nothing speaks against the address
            return self._network.find(flow._replace(source=b"")) is not None
        return last is not None and last.source == flow.source and last.device != route.device


def _is_another(flow: Flow, last: OuterRoute | None, route: OuterRoute) -> bool:
    """Return whether a route differs from the last one, and not only because the peer now sends to another address."""
    return route != last and (last is None or not flow.source or last.source == flow.source)
