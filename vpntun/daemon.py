"""The wiring of one tunnel: opens what the operator asked for, ties it together, runs the loop, puts everything back.

Order: the keys have been read; device, sockets, addresses and routes; then the loop. What fails half-way takes away
what was set up before it, in the opposite order, and so does the end.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from collections import Counter
from contextlib import ExitStack
from functools import partial

from vpntun.config.tunnel import SMALLEST_MTU_FOR_IPV6, Interface, Tunnel, explain_covering
from vpntun.core.client import ClientCarriers
from vpntun.core.conversation import Conversation
from vpntun.core.node import Node
from vpntun.core.peer import Peer
from vpntun.core.routes import RouteTable
from vpntun.core.server import ServerCarriers
from vpntun.crypto.aead import BACKEND
from vpntun.host.bundler import Bundler
from vpntun.host.calling import CallingLink
from vpntun.host.carrier import Path
from vpntun.host.delivery import Delivery
from vpntun.host.device import TunDevice, ipv6_is_on
from vpntun.host.inbound import Inbound
from vpntun.host.link import Link, Sealer
from vpntun.host.log import NOTICE, Limited, log, notice
from vpntun.host.loop import Loop
from vpntun.host.netlink import DeviceSettings
from vpntun.host.outbound import Outbound
from vpntun.host.plain import PlainSender
from vpntun.host.resolver import Found, Resolver
from vpntun.host.state import Endpoints, TimestampFile
from vpntun.host.tcp import Strangers, TcpConnection, TcpListener
from vpntun.host.udp import UdpEndpoint, UdpSocket, families
from vpntun.wire import record

CLIENT_KEEPALIVE = 25.0


def run(tunnel: Tunnel) -> None:
    """Keep the tunnel up until SIGINT or SIGTERM. Raises VpntunError."""
    with ExitStack() as stack:
        _Daemon(tunnel, stack).run()


class _Daemon:
    def __init__(self, tunnel: Tunnel, stack: ExitStack) -> None:
        self._tunnel = tunnel
        self._stack = stack
        self._loop = Loop()
        stack.callback(self._loop.close)
        stack.enter_context(self._loop.ending_on_signals())
        self._drops: Counter[str] = Counter()
        self._device = TunDevice(tunnel.interface)
        stack.callback(self._device.close)
        self._udp = self._open_udp()
        self._listeners = self._open_listeners()
        self._addresses = self._configure_device()
        self._endpoints = Endpoints(tunnel.interface)
        self._link = self._make_link()
        self._connect_data_path()

    def run(self) -> None:
        """Announce, and serve until told to stop."""
        self._announce()
        self._link.start()
        self._loop.run(lambda: self._link.deadline, self._link.handle_deadline)
        log.info("at the end: %s", self._link.conversation)
        if self._drops:
            log.info("dropped: %s", ", ".join(f"{count} {reason}" for reason, count in self._drops.most_common()))

    def _open_udp(self) -> dict[int, UdpSocket]:
        serving = self._tunnel.role == "server"
        if serving and self._tunnel.transport == "tcp":
            return {}
        sockets = {}
        for family in families():
            port = self._tunnel.port if serving else 0
            sockets[family] = UdpSocket(family, port, self._loop, answers_from_where_asked=serving)
            self._stack.callback(sockets[family].close)
        return sockets

    def _open_listeners(self) -> list[TcpListener]:
        if self._tunnel.role == "client" or self._tunnel.transport == "udp":
            return []
        strangers = Strangers()
        listeners = []
        for family in families():
            listeners.append(TcpListener(family, self._tunnel.port, strangers))
            self._stack.callback(listeners[-1].close)
        return listeners

    def _configure_device(self) -> list[Interface]:
        tunnel, device = self._tunnel, self._device
        addresses, mtu = list(tunnel.addresses), tunnel.mtu
        if device.created:
            mtu = mtu or tunnel.default_mtu
            if not addresses:
                ipv6 = mtu >= SMALLEST_MTU_FOR_IPV6 and ipv6_is_on(device.name)
                addresses = [each for each in tunnel.keys.own if each.version == 4 or ipv6]
        if addresses or tunnel.routes or mtu is not None:
            settings = DeviceSettings(device.name)
            if not device.created:
                self._stack.callback(settings.undo)
            settings.apply(addresses, list(tunnel.routes), mtu)
        elif not device.is_up:
            notice("the device is down and is left as it was found: 'ip link set %s up' brings it up", device.name)
        return addresses

    def _make_link(self) -> Link:
        tunnel, keys, rng = self._tunnel, self._tunnel.keys, random.Random()
        calling = tunnel.host is not None
        self._node = Node(keys.identity)
        peer = Peer(
            keys.identity,
            keys.peer,
            keys.psk,
            self._node.indices,
            TimestampFile(keys.identity.public),
            rng,
            keepalive=CLIENT_KEEPALIVE if calling else 0.0,
            chooses_carrier=calling,
        )
        self._node.add(peer)
        conversation = Conversation(
            _takes(self._device), self._device.mtu, self._loop.now, peer_is_vpntun=bool(keys.own)
        )
        sealer = Sealer()
        if tunnel.host is None:
            peer.endpoint = self._last_endpoint(keys.peer)
            link = Link(peer, ServerCarriers(peer, rng), conversation, self._loop, sealer, self._drops)
            link.on_endpoint = self._remember
            return link
        carriers = ClientCarriers(peer, tunnel.transport, rng)
        resolver = Resolver(self._loop, tunnel.host, tunnel.port, self._resolved)
        self._refused = Limited(NOTICE, "%s")
        self._calling_link = CallingLink(
            peer, carriers, conversation, self._loop, sealer, self._drops, resolver=resolver, on_connection=self._watch
        )
        return self._calling_link

    def _connect_data_path(self) -> None:
        routes: RouteTable[Link] = RouteTable()
        for network in self._tunnel.allowed:
            routes.add(network, self._link)
        links = {self._link.peer: self._link}
        bundler = Bundler(PlainSender(self._device.mtu))
        self._pump = partial(bundler.drain, self._link)
        self._link.on_ready = self._pump
        delivery = Delivery(self._device, routes, self._drops)
        self._inbound = Inbound(self._node, links, delivery, self._loop, self._drops)
        outbound = Outbound(self._device, routes, bundler, self._drops)
        self._loop.watch(self._device.fileno(), outbound.read_device)
        for udp in self._udp.values():
            udp.on_ready = self._pump
            self._loop.watch(udp.fileno(), partial(self._inbound.read_udp, udp), udp.flush)
        for listener in self._listeners:
            self._loop.watch(listener.fileno(), partial(self._accept, listener))

    def _announce(self) -> None:
        keys, addresses = self._tunnel.keys, self._addresses
        if addresses and tuple(addresses) == keys.own[: len(addresses)]:
            own = " and ".join(str(each.ip) for each in addresses)
            other = " and ".join(str(each) for each in keys.other[: len(addresses)])
            notice("this end %s, the other end %s", own, other)
        elif addresses:
            notice("this end %s", " and ".join(map(str, addresses)))
        if self._tunnel.role == "server":
            carriers = {"auto": "UDP and TCP", "udp": "UDP", "tcp": "TCP"}[self._tunnel.transport]
            notice("waiting for the peer on %s port %d", carriers, self._tunnel.port)
        log.debug("ChaCha20-Poly1305 by %s", BACKEND)

    def _accept(self, listener: TcpListener) -> None:
        connection = listener.accept(self._loop)
        if connection is not None:
            connection.require_authentication()
            self._watch(connection)

    def _watch(self, connection: TcpConnection) -> None:
        connection.on_ready = self._pump
        connection.on_closed = lambda: self._link.closed(connection)
        self._loop.watch(connection.fileno(), lambda: self._inbound.read_tcp(connection), connection.flush)

    def _resolved(self, found: Found) -> None:
        candidates: list[UdpEndpoint] = []
        for family, address in found:
            covering = self._tunnel.covering(ipaddress.ip_address(address[0].partition("%")[0]))
            if covering is not None:
                self._refused(explain_covering(covering, address[0]))
            elif family in self._udp:
                candidates.append(self._udp[family].endpoint(address))
        self._calling_link.resolved(candidates)

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
        return self._udp[family].endpoint(address) if family in self._udp else None

    def _remember(self, path: Path) -> None:
        if isinstance(path, UdpEndpoint):
            self._endpoints.remember(self._link.peer.public, path.address[0], path.address[1])


def _takes(device: TunDevice) -> int:
    """What this end says that it takes: what its device does."""
    takes = record.TAKES_BURSTS
    if device.takes_tcp:
        takes |= record.TAKES_CHECKSUM | record.TAKES_TSO4 | record.TAKES_TSO6
    if device.takes_udp:
        takes |= record.TAKES_USO4 | record.TAKES_USO6
    return takes
