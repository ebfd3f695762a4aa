"""Links of one interface, one for each configured peer, and their changes at a reload or by wg(8).

new peer                                a link is added
removed peer                            its keys are wiped, its connections closed, its routes removed
other allowed IPs or MACs, keepalive or name
                                        changed in place, and the session continues
other preshared key                     the same; the next handshake uses it
other address to call                   the same; over UDP the peer is sent to there at once
any other change of a peer              the peer is removed, and added as a new one
unchanged peer                          left alone
other keys of this end                  every session ends, and the peers that had one are asked for another

A reload has the same result as a restart with the same configuration: if several peers have the same prefix, it belongs
to the last of them.
"""

from __future__ import annotations

import ipaddress
import pathlib
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from vpntun.carriers.sockets import address_at, family_of, host_of
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel, explain_covering
from vpntun.core.endpoint import Endpoint
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, format_key, shortened
from vpntun.datapath.engine import Engine
from vpntun.link.client_link import ClientLink
from vpntun.link.link import Link
from vpntun.runtime.log import NOTICE, Limited, notice
from vpntun.runtime.resolver import Found, Lookups, Resolver
from vpntun.runtime.state import Endpoints, TimestampFile
from vpntun.types import DIALLED, Network, Place


class Links:
    """Links of an engine, made and changed as configured. `state`: the folder for endpoints and timestamps."""

    def __init__(self, tunnel: Tunnel, engine: Engine, lookups: Lookups, state: pathlib.Path | None = None) -> None:
        self._tunnel = tunnel
        self._engine = engine
        self._lookups = lookups
        self._rng = random.Random()
        self._endpoints = Endpoints(tunnel.interface, engine.loop, state)
        self._state = state
        self._identity = tunnel.keys
        self._timestamps = TimestampFile(self._identity.public, state)
        self._holds_state = False
        self._alone = False
        self._settings: dict[bytes, PeerSettings] = {}
        self._refused = Limited(NOTICE, "%s")

    def of(self, public: bytes) -> Link:
        """Return the link of a peer. Raises KeyError."""
        return self._engine.links[self._engine.node.peers[public]]

    def settings_of(self, link: Link) -> PeerSettings:
        """Return how the link's peer is configured."""
        return self._settings[link.peer.public]

    def identify(self, identity: KeyPair) -> None:
        """Use other keys of this end from now on. A peer with the same key is removed."""
        if identity.public in self._settings:
            self._remove(identity.public)
        if identity != self._identity:
            self._identity = identity
            self._timestamps = TimestampFile(identity.public, self._state)
            if self._holds_state and not self._timestamps.hold():
                notice(
                    "after giving up privileges no timestamps are saved for another private key: if the clock is wrong "
                    "after a reboot, peers refuse this end until it is right; a restart of the tunnel changes that"
                )
        for link in self._engine.links.values():
            link.identify(identity, self._timestamps)

    def is_at(self, public: bytes, place: Place) -> bool:
        """Whether there is such a peer, and it is reached at this address and port now, over any carrier."""
        endpoint = self.of(public).endpoint if public in self._settings else None
        return endpoint is not None and endpoint.address == address_at(*place)

    def name_has(self, peer: PeerSettings, place: Place) -> bool:
        """Whether a peer is called by a name that has this address, or under which it was found there."""
        link, address = self.of(peer.public), address_at(*place)
        if not isinstance(link, ClientLink) or address_at(peer.host or "", peer.port) is not None:
            return False
        return any(address == each.address for each in (*link.destinations, *link.candidates))

    def dissolve(self) -> None:
        """Remove every link, until this end has keys again. The endpoints are remembered."""
        for public in list(self._settings):
            self._remove(public)
        self.close()

    def change(
        self, wanted: Iterable[PeerSettings], moved: Mapping[bytes, Place] = MappingProxyType({})
    ) -> tuple[int, int, int]:
        """Make the links match these peers; return how many peers were added, removed and changed.

        `moved`: where peers are to be sent to now, wherever they have moved by themselves. A connection stays in use.
        """
        fresh = {settings.public: settings for settings in wanted}
        self._alone = len(fresh) == 1
        gone = [public for public in self._settings if public not in fresh]
        changed = [public for public, former in self._settings.items() if fresh.get(public, former) != former]
        new = [public for public in fresh if public not in self._settings]
        for public in gone:
            self._remove(public)
            self._endpoints.forget(public)
        for public in changed:
            self._change(fresh[public])
        for public in new:
            self._add(fresh[public])
        for public, place in moved.items():
            link, endpoint = self.of(public), self._endpoint_at(place)
            is_connected = isinstance(link, ClientLink) and (link.endpoint is None or link.endpoint.is_stream)
            if endpoint is not None and not is_connected:
                link.move(endpoint)
        self._settle(fresh)
        return len(new), len(gone), len(changed)

    def drops(self) -> Counter[str]:
        """Return the number of drops of all links together, by reason."""
        return sum((link.drops for link in self._engine.links.values()), Counter())

    def remember(self, link: Link) -> None:
        """Remember, for a restart, where a peer that calls is reached. Connections would not outlive this process."""
        endpoint = link.endpoint
        if endpoint is not None and endpoint.carrier not in DIALLED and not isinstance(link, ClientLink):
            self._endpoints.remember(link.peer.public, host_of(endpoint.address), endpoint.address[1])

    def hold_state(self) -> None:
        """Open the state files for writing, before privileges are given up."""
        self._holds_state = True
        self._endpoints.hold()
        self._timestamps.hold()

    def close(self) -> None:
        """Write the peers' endpoints to the state file."""
        self._endpoints.save()

    def _add(self, settings: PeerSettings) -> None:
        engine = self._engine
        peer = Peer(
            self._identity,
            settings.public,
            settings.psk,
            engine.node.indices,
            self._timestamps,
            self._rng,
            keepalive=settings.keepalive,
            chooses_carrier=settings.host is not None,
            may_be_at=engine.guard.for_a_peer(),
        )
        engine.node.add(peer)
        self._settings[settings.public] = settings
        make = self._server_link if settings.host is None else self._client_link
        link = make(peer, settings)
        engine.add(link, settings.allowed)
        self._allow(link, settings)
        link.start()

    def _remove(self, public: bytes) -> None:
        self._engine.remove(self.of(public))
        del self._settings[public]

    def _change(self, settings: PeerSettings) -> None:
        public, link = settings.public, self.of(settings.public)
        former = self._settings[public]
        if not self._can_remain(link, former, settings):
            self._remove(public)
            self._add(settings)
            return
        self._settings[public] = settings
        if settings.psk != former.psk:
            link.change_psk(settings.psk)
        if settings.keepalive != former.keepalive:
            link.keep_alive(settings.keepalive)
            if not former.keepalive:
                link.turn_on_keepalive()
        if settings.allowed_macs != former.allowed_macs:
            self._allow(link, settings)
        if settings.allowed is not former.allowed:
            self._route(link, former.allowed, settings.allowed)

    def _can_remain(self, link: Link, former: PeerSettings, settings: PeerSettings) -> bool:
        """Whether the link of a changed peer can remain; if so, and there is another address to call, call it there."""
        kept = replace(
            former,
            allowed=settings.allowed,
            keepalive=settings.keepalive,
            name=settings.name,
            psk=settings.psk,
            endpoint=settings.endpoint,
            allowed_macs=settings.allowed_macs,
        )
        if kept == settings:
            return True
        host, port = settings.host, settings.port
        if host is None or not isinstance(link, ClientLink) or replace(kept, host=host, port=port) != settings:
            return False
        endpoint = self._endpoint_at((host, port))
        if endpoint is not None:
            link.call_at(endpoint, self._resolver(lambda: link, host, port))
        return endpoint is not None

    def _allow(self, link: Link, settings: PeerSettings) -> None:
        if self._engine.switch is not None:
            self._engine.switch.allow(link, frozenset(settings.allowed_macs))

    def _route(self, link: Link, former: Iterable[Network], wanted: Iterable[Network]) -> None:
        """Make the routes of a link match, except those to prefixes that another link has by now."""
        routes, to_link = self._engine.routes, set(wanted)
        for network in to_link.symmetric_difference(former):
            if network in to_link:
                routes.add(network, link)
            elif routes.owner(network) is link:
                routes.remove(network)

    def _settle(self, fresh: dict[bytes, PeerSettings]) -> None:
        """Update what depends on all peers: names for the log, prefixes that several peers have, covered endpoints."""
        routes = self._engine.routes
        for settings in fresh.values():
            self.of(settings.public).name = self._name(settings)
        if len(routes) < sum(len(settings.allowed) for settings in fresh.values()):
            for settings in fresh.values():
                link = self.of(settings.public)
                for network in settings.allowed:
                    routes.add(network, link)
        for link in self._engine.links.values():
            self._engine.guard.follow(link)

    def _server_link(self, peer: Peer, settings: PeerSettings) -> Link:
        """Return the link of a peer that calls."""
        peer.endpoint = self._last_endpoint(settings)
        return Link(self._engine, peer, ServerCarriers(peer, self._rng), self._records(settings), self._name(settings))

    def _client_link(self, peer: Peer, settings: PeerSettings) -> Link:
        """Return the link of a peer that is called."""
        resolver = self._resolver(lambda: link, settings.host or "", settings.port)
        selector = ClientCarriers(peer, settings.transport, self._rng)
        link = ClientLink(self._engine, peer, selector, self._records(settings), resolver, self._name(settings))
        return link

    def _resolver(self, link: Callable[[], ClientLink], host: str, port: int) -> Resolver:
        """Return the look-ups of a peer's host, of which the link is told."""
        return Resolver(self._lookups, host, port, lambda found: link().resolved(self._candidates(found)))

    def _records(self, settings: PeerSettings) -> RecordProtocol:
        engine = self._engine
        return RecordProtocol(
            engine.takes,
            engine.longest_packet,
            engine.loop.now,
            peer_is_vpntun=settings.is_vpntun,
            asks_when_quiet=settings.host is not None,
            is_tap=engine.is_tap,
        )

    def _name(self, settings: PeerSettings) -> str:
        """Return what the log calls a peer: its name, or the beginning of its key; empty for the only peer."""
        if settings.name or self._alone:
            return settings.name
        return f"peer {shortened(format_key(settings.public))}"

    def _candidates(self, found: Found) -> list[Endpoint]:
        """Return the endpoints of a name's addresses, except addresses that the tunnel itself covers."""
        candidates = []
        for _, address in found:
            covering = self._tunnel.covering(ipaddress.ip_address(address[0]))
            if covering is not None:
                self._refused(explain_covering(covering, address[0]))
            elif (endpoint := self._engine.candidate(address)) is not None:
                candidates.append(endpoint)
        return candidates

    def _last_endpoint(self, settings: PeerSettings) -> Endpoint | None:
        """Return where the operator says that a peer is, or where it was before this program was restarted."""
        if settings.endpoint is not None:
            return self._endpoint_at(settings.endpoint)
        place = self._endpoints.recall(settings.public)
        address = address_at(*place) if place is not None else None
        return self._engine.candidate(address) if address is not None else None

    def _endpoint_at(self, place: Place) -> Endpoint | None:
        """Return the endpoint of an address and port; None for a name, or if a peer cannot be reached there."""
        address = address_at(*place)
        found = [(socket.AddressFamily(family_of(address)), address)] if address is not None else []
        return next(iter(self._candidates(found)), None)
