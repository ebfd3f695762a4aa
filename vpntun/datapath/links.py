"""The links of one interface: one a peer, made as configured, and changed when the configuration is read again.

a new peer                               a link, started, its allowed IPs in the route table
one that is gone                         its keys are wiped, its connections close, its packets lead nowhere
other allowed IPs, keepalive or name     changed in place: the session goes on
anything else of a peer has changed      gone, and new
the same peer                            untouched

What a reload makes is what a restart with the same configuration would: of a prefix that several peers have, the last.
"""

from __future__ import annotations

import ipaddress
import pathlib
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import Flow, Path
from vpntun.carriers.tcp import TcpConnection
from vpntun.carriers.udp import UdpEndpoint, UdpSocket
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel, explain_covering
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.routes import RouteTable
from vpntun.core.selection.client import ClientCarriers
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import format_key
from vpntun.datapath.bundler import Bundler
from vpntun.datapath.client_link import ClientLink
from vpntun.datapath.link import Link
from vpntun.datapath.link_monitor import LinkMonitor
from vpntun.datapath.loopguard import LoopGuard
from vpntun.datapath.plain import PlainSender
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found, Lookups, Resolver
from vpntun.runtime.schedule import Schedule
from vpntun.runtime.state import Endpoints, TimestampFile
from vpntun.tun.device import TunDevice
from vpntun.wire import record
from vpntun.wire.framing import SharedBuffer

SHOWN_OF_A_KEY = 8


class Links:
    """All links, and what they share. `by_peer` is the data path's way in, `routes` its way out.

    `accepted` has the TCP connections that were accepted. `on_connection` is told of every TCP connection that was
    dialled, to have it watched; `on_change` of every link that stands now, or does not any more.
    """

    def __init__(
        self,
        tunnel: Tunnel,
        loop: Loop,
        device: TunDevice,
        udp: dict[int, UdpSocket],
        leads_inside: Callable[[Flow], bool],
        state: pathlib.Path | None = None,
    ) -> None:
        """`leads_inside`: whether a flow leaves by the device. `state`: the folder of what is to be remembered."""
        self._tunnel = tunnel
        self._loop = loop
        self._device = device
        self._udp = udp
        self._rng = random.Random()
        self._seal_buffer = SealBuffer()
        self._received = SharedBuffer()
        self._lookups = Lookups(loop)
        self._endpoints = Endpoints(tunnel.interface, loop, state)
        self._timestamps = TimestampFile(tunnel.identity.public, state)
        self._alone = False
        self._settings: dict[bytes, PeerSettings] = {}
        self._refused = Limited(NOTICE, "%s")
        self.accepted = AcceptedConnections(loop, self._received, on_ready=self._ready, on_closed=self._closed)
        self.by_peer: dict[Peer, Link] = {}
        self.node = Node(tunnel.identity)
        self.routes: RouteTable[Link] = RouteTable()
        self.guard = LoopGuard(loop, self.routes, leads_inside)
        self.schedule = Schedule(loop.internal_errors)
        self.bundler = Bundler(PlainSender(device.mtu, self._seal_buffer), self._seal_buffer)
        self.on_connection: Callable[[TcpConnection], None] = lambda connection: None
        self.on_change: Callable[[Link, bool], None] = lambda link, stands: None
        self.monitor = LinkMonitor(loop, self._changed)

    def of(self, public: bytes) -> Link:
        """The link of a peer. Raises KeyError."""
        return self.by_peer[self.node.peers[public]]

    def settings_of(self, link: Link) -> PeerSettings:
        """How its peer is configured."""
        return self._settings[link.peer.public]

    def change(self, wanted: Iterable[PeerSettings]) -> tuple[int, int, int]:
        """Have these peers and no others; returns how many were added, removed and changed."""
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
        self._settle(fresh)
        return len(new), len(gone), len(changed)

    def drops(self) -> Counter[str]:
        """What all links have dropped, by reason."""
        return sum((link.drops for link in self.by_peer.values()), Counter())

    def hold_state(self) -> None:
        """Privileges are about to be given up: what is to be remembered must be written all the same."""
        self._endpoints.hold()
        self._timestamps.hold()

    def find_all(self, peers: Iterable[PeerSettings]) -> None:
        """Wait until every name is found that a peer is called at, or the loop is stopped."""
        self._lookups.look_all_up_ahead([(peer.host, peer.port) for peer in peers if peer.host is not None])

    def close(self) -> None:
        """Look no names up any more, and write what is to be remembered of the peers."""
        self._lookups.close()
        self._endpoints.save()

    def _changed(self, link: Link, stands: bool) -> None:
        self.on_change(link, stands)

    def _ready(self, connection: TcpConnection) -> None:
        link = self._link_on(connection)
        if link is not None:
            self.bundler.drain(link)

    def _closed(self, connection: TcpConnection) -> None:
        link = self._link_on(connection)
        if link is not None:
            link.closed(connection)

    def _link_on(self, connection: TcpConnection) -> Link | None:
        return self.by_peer.get(connection.peer) if connection.peer is not None else None

    def _add(self, settings: PeerSettings) -> None:
        peer = Peer(
            self._tunnel.identity,
            settings.public,
            settings.psk,
            self.node.indices,
            self._timestamps,
            self._rng,
            keepalive=settings.keepalive,
            chooses_carrier=settings.host is not None,
            may_be_at=self.guard.for_a_peer(),
        )
        self.node.add(peer)
        self._settings[settings.public] = settings
        link = self._waiting(peer, settings) if settings.host is None else self._calling(peer, settings, settings.host)
        link.on_ready = partial(self.bundler.drain, link)
        link.on_endpoint = partial(self._moved, link)
        self.monitor.follow(link)
        self.by_peer[peer] = link
        for network in settings.allowed:
            self.routes.add(network, link)
        link.start()

    def _remove(self, public: bytes) -> None:
        link = self.of(public)
        self.monitor.forget(link)
        link.stop()
        self.routes.remove_all(link)
        self.bundler.forget(link)
        self.schedule.forget(link)
        self.guard.forget(link)
        self.node.remove(link.peer)
        del self.by_peer[link.peer], self._settings[public]
        self.accepted.close_all_of(link.peer)

    def _change(self, settings: PeerSettings) -> None:
        kept = replace(
            self._settings[settings.public], allowed=settings.allowed, keepalive=settings.keepalive, name=settings.name
        )
        if kept != settings:
            self._remove(settings.public)
            self._add(settings)
            return
        link = self.of(settings.public)
        self._settings[settings.public] = settings
        link.keep_alive(settings.keepalive)
        for network in set(self.routes.networks_of(link)) - set(settings.allowed):
            self.routes.remove(network)
        for network in settings.allowed:
            self.routes.add(network, link)

    def _settle(self, fresh: dict[bytes, PeerSettings]) -> None:
        """What depends on all peers: names for the log, who has a prefix that several are given, covered endpoints."""
        for settings in fresh.values():
            self.of(settings.public).name = self._name(settings)
        if len(self.routes) < sum(len(settings.allowed) for settings in fresh.values()):
            for settings in fresh.values():
                link = self.of(settings.public)
                for network in settings.allowed:
                    self.routes.add(network, link)
        for link in self.by_peer.values():
            self.guard.follow(link)

    def _waiting(self, peer: Peer, settings: PeerSettings) -> Link:
        """The link of a peer that calls."""
        peer.endpoint = self._last_endpoint(peer.public)
        selector = ServerCarriers(peer, self._rng)
        return Link(peer, selector, *self._parts(settings))

    def _calling(self, peer: Peer, settings: PeerSettings, host: str) -> Link:
        """The link of a peer that is called."""

        def resolved(found: Found) -> None:
            link.resolved(self._candidates(found))

        selector = ClientCarriers(peer, settings.transport, self._rng)
        link = ClientLink(
            peer,
            selector,
            *self._parts(settings),
            resolver=Resolver(self._lookups, host, settings.port, resolved),
            received=self._received,
            on_connection=self.on_connection,
        )
        return link

    def _parts(self, settings: PeerSettings) -> tuple[RecordProtocol, Loop, Schedule, SealBuffer, Counter[str], str]:
        """What every link is made of."""
        takes, mtu = takes_of(self._device), self._device.mtu
        records = RecordProtocol(takes, mtu, self._loop.now, peer_is_vpntun=settings.is_vpntun)
        return records, self._loop, self.schedule, self._seal_buffer, Counter(), self._name(settings)

    def _name(self, settings: PeerSettings) -> str:
        """What the log calls a peer: its name, or the beginning of its key; nothing where there is only one."""
        if settings.name or self._alone:
            return settings.name
        return f"peer {format_key(settings.public)[:SHOWN_OF_A_KEY]}"

    def _candidates(self, found: Found) -> list[UdpEndpoint]:
        candidates = []
        for family, address in found:
            covering = self._tunnel.covering(ipaddress.ip_address(address[0].partition("%")[0]))
            if covering is not None:
                self._refused(explain_covering(covering, address[0]))
            elif family in self._udp and not self.guard.refuses(self._udp[family].endpoint(address)):
                candidates.append(self._udp[family].endpoint(address))
        return candidates

    def _last_endpoint(self, public: bytes) -> UdpEndpoint | None:
        host, port = self._endpoints.recall(public) or (None, 0)
        if host is None:
            return None
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            return None
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        address = (host, port) if version == 4 else (host, port, 0, 0)
        endpoint = self._udp[family].endpoint(address) if family in self._udp else None
        return endpoint if endpoint is not None and not self.guard.refuses(endpoint) else None

    def _moved(self, link: Link, path: Path) -> None:
        self.guard.follow(link)
        if isinstance(path, UdpEndpoint) and self.settings_of(link).host is None:
            self._endpoints.remember(link.peer.public, path.address[0], path.address[1])


def takes_of(device: TunDevice) -> int:
    """What this end says that it takes, a sum of TAKES_*: what its device does."""
    takes = record.TAKES_BURSTS | record.TAKES_PARITY
    if device.takes_tcp:
        takes |= record.TAKES_CHECKSUM | record.TAKES_TSO4 | record.TAKES_TSO6
    if device.takes_udp:
        takes |= record.TAKES_USO4 | record.TAKES_USO6
    return takes
