"""Data path of one device: everything between the device, the carriers and the links.

    outbound    device -> outbound.py -> bundler.py or plain.py -> link/ -> an endpoint of a carrier
    inbound     a carrier -> inbound.py -> link/ -> delivery.py -> device, or relay.py or switch.py

IP packets of a TUN device take outbound.py, delivery.py and relay.py of datapath/routing/, Ethernet frames of a TAP
device those of datapath/switching/.

The daemon, the tests and the benchmarks build the same engine, on a real device and real carriers (tun/device.py,
carriers/), or on fake ones (tun/fake.py, carriers/fake.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress

from vpntun.carriers.base import Carrier, ConnectionOwner, DatagramSource, Stream
from vpntun.core.endpoint import Endpoint, Outcome, Reachable
from vpntun.core.outer_paths import OuterNetwork, UnknownNetwork
from vpntun.core.routes import RouteTable
from vpntun.core.wireguard.node import Node
from vpntun.crypto.keys import KeyPair
from vpntun.datapath.answers import Answers
from vpntun.datapath.link_paths import LinkPaths
from vpntun.datapath.mirror import Mirror
from vpntun.datapath.receiving.delivery import Delivery
from vpntun.datapath.receiving.inbound import Inbound
from vpntun.datapath.routing.delivery import PacketDelivery
from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.datapath.routing.outbound import Outbound
from vpntun.datapath.routing.relay import Relay
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.device_reader import DeviceReader
from vpntun.datapath.sending.distributor import Distributor
from vpntun.datapath.sending.plain import PlainSender
from vpntun.datapath.switching.delivery import FrameDelivery
from vpntun.datapath.switching.outbound import FrameOutbound
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import DeviceError
from vpntun.link.link import Link
from vpntun.link.link_monitor import LinkMonitor, LinkObserver, NoObserver
from vpntun.link.seal_buffer import SealBuffer
from vpntun.netconf.localnets import OwnAddresses
from vpntun.runtime.clock import Pause
from vpntun.runtime.log import notice
from vpntun.runtime.loop import Loop
from vpntun.runtime.schedule import Schedule
from vpntun.tun.base import Device
from vpntun.types import CarrierName, Network, SocketAddress
from vpntun.wire import record
from vpntun.wire.ethernet.frame import LARGEST_HEADER
from vpntun.wire.message import Buffer
from vpntun.wire.record import BUNDLE, FRAMES

SECONDS_TO_RECOVER = 1.0
"""Delay after an internal error before packets are sent that an interrupted callback left waiting."""


class Engine:
    """Engine that connects the device, the carriers and the links. Packets flow after `start`.

    links       every link, by its peer
    routes      table from allowed IPs to links; empty on a TAP device
    switch      switch of a TAP device; None on a TUN device
    takes       what this end can receive, a sum of record.TAKES_*: the offloads of its device among them
    answers     what answers the requests of peers
    mirror      shows packets to those who capture them

    `identity`: None while this end has no private key; `node.identity` is set later. `network`: this host's routes for
    the packets that the engine sends. `own_addresses`: this machine's addresses, if the engine relays between peers.
    `copies_dscp`: outer packets get the DSCP of the packets inside. `drops`: counter of drops that cannot be ascribed
    to a peer, by reason.
    """

    def __init__(
        self,
        identity: KeyPair | None,
        device: Device,
        carriers: Mapping[CarrierName, Carrier],
        loop: Loop,
        *,
        network: OuterNetwork | None = None,
        own_addresses: OwnAddresses | None = None,
        copies_dscp: bool = False,
        drops: Counter[str] | None = None,
        observer: LinkObserver | None = None,
    ) -> None:
        self.loop = loop
        self.device = device
        self.takes = takes_of(device)
        self.drops: Counter[str] = Counter() if drops is None else drops
        self.node = Node(identity)
        self.links: dict[Reachable, Link] = {}
        self.answers = Answers(loop.internal_errors)
        self.routes: RouteTable[Link] = RouteTable()
        self.schedule = Schedule(loop.internal_errors)
        self.seal_buffer = SealBuffer()
        network = network or UnknownNetwork()
        self._observer = observer or NoObserver()
        self.monitor = LinkMonitor(loop, self._observer)
        self._carriers = carriers
        self._last_mtu = self._followed_mtu = device.mtu
        self._plain = PlainSender(self._last_mtu, self.seal_buffer)
        self.is_tap = device.kind == "tap"
        self._bundler = Bundler(self._plain, self.seal_buffer, copies_dscp=copies_dscp, frames=self.is_tap)
        self._distributor = Distributor(self._bundler)
        self.switch = Switch(self.links, self._distributor, loop, device.mtu) if self.is_tap else None
        self.guard = self._make_guard(network)
        self._paths = LinkPaths(loop, network, self.guard)
        self._own_addresses = own_addresses
        self._inbound = Inbound(self.node, self.links, loop, self.drops, FRAMES if self.is_tap else BUNDLE)
        self._reader, self._delivery = self._make_ends()
        self._relay: Relay | None = None
        self.mirror = Mirror(self._bundler, self._distributor, self._reader, self._delivery)
        if self.switch is not None:
            self.mirror.forward_through(self.switch)
        self.deliver_bundle = self._delivery.take_bundle
        self.deliver_packet = self._delivery.take_packet
        self.drain = self._bundler.drain
        self.answer = self.answers.answer
        loop.call_after_pauses(self._woken)
        loop.internal_errors.recover_by(self._bundler.discard, self._delivery.discard, self._drain_later)

    def _make_guard(self, network: OuterNetwork) -> LoopGuard:
        if self.switch is not None:
            return LoopGuard(self.loop, lambda _: True, network.leads_inside, self.switch.table.empty_caches)
        routes = self.routes
        return LoopGuard(self.loop, routes.covers, network.leads_inside, routes.empty_caches)

    def _make_ends(self) -> tuple[DeviceReader, Delivery]:
        """Make what reads the device, and what writes to it."""
        device, bundler, guard, loop, drops = self.device, self._bundler, self.guard, self.loop, self.drops
        if self.switch is not None:
            reader = FrameOutbound(device, self.switch, bundler, guard, loop, drops)
            return reader, FrameDelivery(device, self.switch, drops)
        routes = self.routes
        return Outbound(device, routes, bundler, guard, loop, drops), PacketDelivery(device, routes, drops)

    def start(self) -> None:
        """Watch the device and the carriers from now on, and relay, with the MTU and the address that it has now."""
        self._pin_macs()
        if self._own_addresses is not None:
            relay = Relay(self.mtu, self.routes, self._distributor, self._own_addresses, self.loop.time)
            self._relay = relay
            self.mirror.forward_through(relay)
        self.loop.watch(self.device.fileno(), self._reader.read_device)
        for carrier in self._carriers.values():
            carrier.start(self)

    @property
    def mtu(self) -> int:
        """The device's MTU at this moment, in bytes: operators change it.

        It is the last one known if the device was moved to another network namespace.
        """
        with suppress(DeviceError):
            self._last_mtu = self.device.mtu
        return self._last_mtu

    @property
    def longest_packet(self) -> int:
        """Bytes of the longest packet or frame of the device, superpackets aside."""
        return self.mtu + (LARGEST_HEADER if self.is_tap else 0)

    def device_changed(self) -> None:
        """Adapt to the device's MTU, its MAC address and its bridge, which operators change."""
        self.follow_mtu()
        self._pin_macs()

    def _pin_macs(self) -> None:
        """Keep the MAC addresses of this machine itself from the peers. The device may be gone by now."""
        if self.switch is not None:
            with suppress(DeviceError):
                self.switch.table.pin(*self.device.macs)

    def follow_mtu(self) -> None:
        """Adapt what is sent to the device's MTU, if that has changed: wg-quick sets it after the peers."""
        mtu = self.mtu
        if mtu == self._followed_mtu:
            return
        self._followed_mtu = mtu
        self._plain.follow_mtu(mtu)
        if self._relay is not None:
            self._relay.follow_mtu(mtu)
        if self.switch is not None:
            self.switch.follow_mtu(mtu)
        longest = self.longest_packet
        for link in self.links.values():
            link.follow_mtu(longest)

    # Links

    @property
    def can_call(self) -> bool:
        """Whether peers can be called, which takes a carrier that returns candidates."""
        return any(carrier.can_call for carrier in self._carriers.values())

    def add(self, link: Link, allowed: Iterable[Network]) -> None:
        """Add a link. Packets to and from its allowed IPs flow through it once it is started."""
        self.links[link.peer] = link
        self.monitor.follow(link)
        for network in allowed:
            self.routes.add(network, link)
        if self.switch is not None:
            self.switch.follow_links()

    def remove(self, link: Link) -> None:
        """Remove a link: wipe its keys, close its connections, and remove its routes."""
        self.monitor.forget(link)
        link.stop()
        self.routes.remove_all(link)
        self._bundler.forget(link)
        self._inbound.forget(link)
        self.schedule.forget(link)
        self._paths.forget(link)
        self.node.remove(link.peer)
        del self.links[link.peer]
        if self.switch is not None:
            self.switch.forget(link)
        for carrier in self._carriers.values():
            carrier.close_all_of(link.peer)

    def candidate(self, address: SocketAddress) -> Endpoint | None:
        """Return the endpoint of an address; None if this host cannot reach it, or only through the tunnel itself."""
        for carrier in self._carriers.values():
            endpoint = carrier.candidate(address)
            if endpoint is not None:
                if self.guard.refuses(endpoint):
                    return None
                self._paths.settle(endpoint)
                return endpoint
        return None

    def renew_port(self) -> None:
        """Call peers from another local port from now on. The endpoints in use keep theirs."""
        in_use = [link.endpoint for link in self.links.values() if link.endpoint is not None]
        renewed = [carrier.renew(in_use) for carrier in self._carriers.values()]
        if any(renewed):
            for link in self.links.values():
                link.renew_candidates()

    def change_port(self, port: int, *, can_be_called: bool) -> None:
        """Use this local port from now on, 0 for any. Peers are shown it at once; connections stay.

        `can_be_called`: whether peers may call there. Raises PortInUse, PrivilegeError or VpntunError, and then nothing
        has changed.
        """
        carriers = self._carriers.values()
        with ExitStack() as opened:
            changes = [carrier.prepare_port(port, opened, can_be_called=can_be_called) for carrier in carriers]
            opened.pop_all()
        in_use = [
            (link, endpoint.address, endpoint.flow.source)
            for link in self.links.values()
            if (endpoint := link.endpoint) is not None and not endpoint.is_stream
        ]
        for change in changes:
            change()
        for link in self.links.values():
            link.renew_candidates()
        for link, address, source in in_use:
            fresh = next(filter(None, (carrier.candidate(address) for carrier in carriers)), None)
            if fresh is not None:
                if source:
                    fresh.send_from(source)
                link.send_again_from(fresh)

    def network_changed(self) -> None:
        """Look, a few links a turn, whether packets to the peers take other routes now."""
        self._paths.look_again(self.links.values())

    # For the links (LinkOwner of link/link.py, Dialler of link/client_link.py)

    def has_moved(self, link: Link) -> None:
        """Note that a peer has moved: update the loop guard and the routes, and call the observer."""
        self._paths.follow(link)
        self._observer.link_moved(link)

    def has_acted(self, link: Link) -> None:
        """Check whether the link is up now, and whether the peer is reached from another port."""
        self._paths.follow_another(link)
        self.monitor.look(link)

    def dial(
        self,
        carrier: CarrierName,
        candidate: Endpoint,
        owner: ConnectionOwner,
        on_done: Callable[[Stream | None], None],
    ) -> None:
        """Open a connection of a carrier, as Carrier.dial."""
        self._carriers[carrier].dial(candidate, owner, on_done)

    def give_up_dials(self, owner: ConnectionOwner) -> None:
        """Give up the connections that are being opened for an owner."""
        for carrier in self._carriers.values():
            carrier.give_up_dials(owner)

    # For the carriers (carriers/base.py)

    def read_datagrams(self, source: DatagramSource) -> None:
        """Process and deliver the datagrams that wait at a socket."""
        self._inbound.read_datagrams(source)
        self._delivery.flush()
        self._inbound.process_handshakes()

    def read_stream(self, connection: Stream) -> None:
        """Process and deliver the messages that wait at a connection."""
        self._inbound.read_stream(connection)
        self._delivery.flush()
        self._inbound.process_handshakes()

    def can_send(self, peer: Reachable | None) -> None:
        """Send the packets that wait for a peer; None: for every peer."""
        if peer is None:
            self._bundler.drain_all()
        elif (link := self.links.get(peer)) is not None:
            self._bundler.drain(link)

    def held_sent(self, endpoint: Endpoint, outcome: Outcome, datagrams: int, size: int) -> None:
        """Tell the links of an endpoint what became of datagrams that were held."""
        for link in self.links.values():
            if link.endpoint == endpoint:
                link.note_outcome(outcome, datagrams, size)

    def fits_session(self, header: Buffer) -> bool:
        """Return whether a data message's header names a live session and a counter not seen in it."""
        return self._inbound.fits_session(header)

    def connection_closed(self, connection: Stream, peer: Reachable) -> None:
        """Tell the peer's link that a connection has closed."""
        if (link := self.links.get(peer)) is not None:
            link.closed(connection)

    def _woken(self, pause: Pause) -> None:
        """Ask all peers for handshakes: keys and paths from before the pause may be of no use now."""
        notice("%s; asking for new sessions", pause)
        for link in list(self.links.values()):
            link.woken()

    def _drain_later(self) -> None:
        self.loop.call_later(SECONDS_TO_RECOVER, self._bundler.drain_all)


def takes_of(device: Device) -> int:
    """Return what this end announces that it can receive, a sum of record.TAKES_*: the device's offloads among them."""
    takes = record.TAKES_BURSTS | record.TAKES_PARITY
    if device.takes_tcp:
        takes |= record.TAKES_CHECKSUM | record.TAKES_TSO4 | record.TAKES_TSO6
    if device.takes_udp:
        takes |= record.TAKES_USO4 | record.TAKES_USO6
    return takes
