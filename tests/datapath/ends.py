"""Complete ends of a link, without root: the real peer, link and data path, on fake devices and carriers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network

from tests.machine import HandLoop
from tests.wire.packets import finished, slow_sum, start_of
from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import Carrier, Stream
from vpntun.carriers.fake import FakeEndpoint, FakeSource
from vpntun.carriers.tcp import TcpCarrier
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.endpoint import Endpoint, Flow
from vpntun.core.events import Event
from vpntun.core.outer_paths import OuterRoute, UnknownNetwork
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.session import Session
from vpntun.datapath.engine import Engine
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.link.link_monitor import LinkObserver
from vpntun.netconf.localnets import OwnAddresses
from vpntun.runtime.loop import Loop
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.tun.fake import FakeDevice
from vpntun.types import NEVER, CarrierName, DeviceKind
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.ip import CE, ECN
from vpntun.wire.stream_framing import SharedBuffer
from vpntun.wire.vnet import NO_OFFLOAD, VNET_HEADER

ALICE, BOB, CAROL, STRANGER = (KeyPair.of(clamp(letter * 32)) for letter in (b"a", b"b", b"c", b"s"))
PSK = b"p" * 32
EVERYTHING = ("0.0.0.0/0", "::/0")


def ipv4(source: str, destination: str, payload: bytes = b"", *, total: int | None = None, words: int = 5) -> bytes:
    """Return an IPv4 packet. `total` and `words`: the lengths in its header, correct unless given."""
    length = 20 + len(payload) if total is None else total
    header = bytes([0x40 | words, 0]) + length.to_bytes(2, "big") + bytes([0, 0, 0x40, 0, 64, 17, 0, 0])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def ipv6(source: str, destination: str, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """Return an IPv6 packet. `length`: the payload length in its header, correct unless given."""
    said = len(payload) if length is None else length
    header = bytes([0x60, 0, 0, 0]) + said.to_bytes(2, "big") + bytes([59, 64])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


class RecordedTcp(TcpCarrier):
    """The TCP carrier, with a list of every connection that it has watched."""

    def __init__(self, loop: Loop, port: int | None, versions: list[int] | None = None) -> None:
        self.connections: list[TcpConnection] = []
        super().__init__(loop, port, versions=versions)

    def _watch(self, connection: TcpConnection) -> None:
        self.connections.append(connection)
        super()._watch(connection)


class EndDevice(FakeDevice):
    """A fake device that shows written packets as the kernel would pass them on."""

    @property
    def arrived(self) -> list[bytes]:
        """The written packets, with superpackets split into the packets that the kernel makes of them."""
        return [
            single
            for packet, header in zip(self.packets, self.headers, strict=True)
            for single in self._singles_of(packet, header)
        ]

    def _singles_of(self, packet: bytes, header: bytes) -> list[bytes]:
        """Return the packets that the kernel makes of a written one. On a TAP device each has the frame's header."""
        lead = ip_at(packet) if self.kind == "tap" else 0
        if header == NO_OFFLOAD or not lead:
            return singles_of(packet, header)
        flags, kind, headers, size, start, offset = VNET_HEADER.unpack(header)
        inner = VNET_HEADER.pack(flags, kind, headers - lead if kind else 0, size, start - lead, offset)
        return [packet[:lead] + single for single in singles_of(packet[lead:], inner)]


def singles_of(packet: bytes, header: bytes) -> list[bytes]:
    """Return the packets that the kernel makes of a written packet: split, with finished checksums.

    The tests use their own code for this, not the program's: each segment is built separately, and its checksum is
    summed word by word.
    """
    flags, kind, _, size, start, offset = VNET_HEADER.unpack(header)
    if not flags:
        assert header == NO_OFFLOAD
        return [packet]
    protocol = 17 if offset == 6 else 6
    assert packet[9 if packet[0] < 0x50 else 6] == protocol, "no extension headers here"
    assert start == start_of(packet)
    if not kind:
        return [finished(packet, protocol, start)]
    end = start + (8 if protocol == 17 else packet[start + 12] >> 4 << 2)
    payload = packet[end:]
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [_single(packet, protocol, start, end, index, piece, pieces) for index, piece in enumerate(pieces)]


def _single(packet: bytes, protocol: int, start: int, end: int, index: int, piece: bytes, pieces: list[bytes]) -> bytes:
    head = bytearray(packet[:end])
    if packet[0] < 0x50:
        head[2:4] = (end + len(piece)).to_bytes(2, "big")
        head[4:6] = ((int.from_bytes(packet[4:6], "big") + index) & 0xFFFF).to_bytes(2, "big")
        head[10:12] = bytes(2)
        head[10:12] = (slow_sum(bytes(head[:start])) ^ 0xFFFF).to_bytes(2, "big")
    else:
        head[4:6] = (end - 40 + len(piece)).to_bytes(2, "big")
    if protocol == 17:
        head[start + 4 : start + 6] = (8 + len(piece)).to_bytes(2, "big")
    else:
        sequence = int.from_bytes(packet[start + 4 : start + 8], "big") + sum(map(len, pieces[:index]))
        head[start + 4 : start + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
        if index:
            head[start + 13] &= ~0x80
        if index < len(pieces) - 1:
            head[start + 13] &= ~0x09
    return finished(bytes(head) + piece, protocol, start)


def new_accepted(loop: HandLoop) -> AcceptedConnections:
    """Return a registry of accepted connections whose callbacks do nothing."""

    def ignore(_: Stream) -> None:
        return

    return AcceptedConnections(loop, SharedBuffer(), ignore, ignore)


class WireGuardsRecordProtocol(RecordProtocol):
    """Record protocol of a plain WireGuard, which sends no records and drops received ones."""

    def confirmed(self, session: Session, now: float) -> list[Event]:
        super().confirmed(session, now)
        return []

    def on_traffic(self, session: Session, now: float) -> list[Event]:
        return []

    def takes_records(self, session: Session, now: float) -> bool:
        return False

    def received(self, session: Session, record: memoryview, source: Endpoint, now: float) -> list[Event]:
        raise BadPacket("unknown record")

    def handle_timer(self, now: float, slept: float) -> list[Event]:
        return []

    @property
    def deadline(self) -> float:
        return NEVER


class Stamps:
    """Timestamps that count up."""

    def __init__(self, start: int = 0) -> None:
        self._last = start

    def next(self) -> bytes:
        self._last += 1
        return self._last.to_bytes(12, "big")


class InsideNetwork(UnknownNetwork):
    """This host's routes. `inside`: the addresses that are routed to the tunnel's device.

    `routes`: the others, by address and source address; b"" for the source that the kernel chooses.
    """

    def __init__(self, inside: set[bytes]) -> None:
        self.inside = inside
        self.routes: dict[tuple[bytes, bytes], OuterRoute] = {}
        self.better = b""

    def leads_inside(self, flow: Flow) -> bool:
        return flow.destination in self.inside

    def find(self, flow: Flow) -> OuterRoute | None:
        return self.routes.get((flow.destination, flow.source))

    def better_source(self, flow: Flow) -> bytes:
        return self.better


class End:
    """One machine: an identity, and an engine on a fake device, with a link to each peer it knows.

    `kind`: that of its device. `plain`: it is a WireGuard, without records.
    `knows_vpntun`: its peers are vpntuns, and it waits for their HELLO.
    `relays_as`: its own addresses, if it relays. `copies_dscp`: its outer packets get the DSCP of the packets inside.
    `carriers`: real carriers, for an end on real sockets. `is_started`: packets flow already.
    """

    def __init__(
        self,
        identity: KeyPair,
        loop: HandLoop,
        mtu: int = 1420,
        stamps: Stamps | None = None,
        *,
        offloads: int = TCP_OFFLOADS | UDP_OFFLOADS,
        kind: DeviceKind = "tun",
        plain: bool = False,
        knows_vpntun: bool = False,
        relays_as: tuple[str, ...] | None = None,
        copies_dscp: bool = False,
        device: EndDevice | None = None,
        carriers: Mapping[CarrierName, Carrier] | None = None,
        observer: LinkObserver | None = None,
        is_started: bool = True,
    ) -> None:
        self.identity = identity
        self.loop = loop
        self.mtu = mtu
        self.drops: Counter[str] = Counter()
        self.inside: set[bytes] = set()
        self.network = InsideNetwork(self.inside)
        self.device = device or EndDevice(mtu, offloads, kind)
        self.engine = Engine(
            identity,
            self.device,
            carriers or {},
            loop,
            network=self.network,
            own_addresses=None if relays_as is None else self._own_addresses(relays_as),
            copies_dscp=copies_dscp,
            drops=self.drops,
            observer=observer,
        )
        self.node, self.routes, self.links = self.engine.node, self.engine.routes, self.engine.links
        self.guard, self.schedule, self.seal_buffer = self.engine.guard, self.engine.schedule, self.engine.seal_buffer
        self.inbound, self.outbound = self.engine._inbound, self.engine._reader
        self.bundler, self.delivery = self.engine._bundler, self.engine._delivery
        self._plain, self._knows_vpntun = plain, knows_vpntun
        self._stamps = stamps or Stamps()
        if is_started:
            self.engine.start()

    def know(self, public: bytes, allowed: Iterable[str] = EVERYTHING, psk: bytes = PSK) -> Link:
        """Add a link to a peer, and return it."""
        rng = random.Random(7)
        may_be_at = self.guard.for_a_peer()
        peer = Peer(self.identity, public, psk, self.node.indices, self._stamps, rng, may_be_at=may_be_at)
        self.node.add(peer)
        link = Link(self.engine, peer, ServerCarriers(peer, rng), self.records())
        self.add(link, allowed)
        return link

    def add(self, link: Link, allowed: Iterable[str] = EVERYTHING) -> None:
        """Add a link, and count its drops together with the engine's."""
        link.drops = self.drops
        self.engine.add(link, map(ip_network, allowed))

    def _own_addresses(self, addresses: tuple[str, ...]) -> OwnAddresses:
        own = [(ip_address(address).packed, self.device.name) for address in addresses]
        return OwnAddresses(self.device.name, lambda: False, lambda: own, self.loop.clock)

    def records(self) -> RecordProtocol:
        """Return a new record protocol for one link."""
        kind = WireGuardsRecordProtocol if self._plain else RecordProtocol
        engine = self.engine
        return kind(
            engine.takes, engine.longest_packet, self.loop.now, peer_is_vpntun=self._knows_vpntun, is_tap=engine.is_tap
        )

    def pump(self) -> None:
        """Send the waiting packets of all links, as when their endpoints are ready again."""
        for link in self.links.values():
            self.engine.drain(link)

    @property
    def link(self) -> Link:
        """The only link."""
        (only,) = self.links.values()
        return only

    def take(self, message: bytes, path: FakeEndpoint, ecn: int = 0) -> None:
        """Receive a message, or a piece of one, from `path`. `ecn`: the ECN field of its IP header."""
        self.take_together([message], path, ecn)

    def take_together(self, messages: Iterable[bytes], path: FakeEndpoint, ecn: int = 0) -> None:
        """Receive messages by one read."""
        if path.is_stream:
            path.incoming += messages
            self.engine.read_stream(path)
        else:
            arrivals = [(memoryview(bytearray(message)), 0, 1, path, ecn) for message in messages]
            self.engine.read_datagrams(FakeSource(*arrivals))

    def send(self, *packets: bytes | tuple[bytes, int]) -> None:
        """Let the device give packets to the engine, which sends them."""
        self.device.from_the_kernel(*packets)
        self.loop.poll()

    def close(self) -> None:
        self.loop.forget(self.device.fileno())
        self.device.close()


class Wire:
    """The path between two ends, with an endpoint at each. `run` delivers sent messages to the other end.

    `is_congested`: its routers mark each datagram whose IP header says that it may be marked.
    """

    def __init__(self, left: End, right: End, name: str = "", carrier: CarrierName = "udp") -> None:
        self.left, self.right = left, right
        self.to_right = FakeEndpoint(f"right{name}", carrier)
        self.to_left = FakeEndpoint(f"left{name}", carrier)
        self.is_congested = False

    def run(self) -> int:
        """Carry messages until none is under way; return their number."""
        count = 0
        while self.to_right.sent or self.to_left.sent:
            for message, ecn in self._taken_from(self.to_right):
                self.right.take(message, self.to_left, ecn)
                count += 1
            for message, ecn in self._taken_from(self.to_left):
                self.left.take(message, self.to_right, ecn)
                count += 1
        return count

    def _taken_from(self, endpoint: FakeEndpoint) -> Iterator[tuple[bytes, int]]:
        """Yield the messages sent to an endpoint, and the ECN fields with which they arrive."""
        fields = [tos & ECN for tos in endpoint.tos]
        for message, ecn in zip(endpoint.take(), fields, strict=True):
            yield message, CE if ecn and self.is_congested else ecn

    def carry_blocking(self, calls: int, *packets: bytes | tuple[bytes, int]) -> None:
        """Let the left end send over a path that blocks after each `calls` calls, until no packet waits."""
        self.to_right.opens(calls)
        self.left.send(*packets)
        for _ in range(2000):
            self.run()
            if not any(link.queue for link in self.left.links.values()):
                break
            self.to_right.opens(calls)
            self.left.pump()

    def shake_hands(self) -> None:
        """Make a session between the two ends, initiated by the left one."""
        link = next(link for link in self.left.links.values() if link.peer.public == self.right.identity.public)
        link.peer.forget_handshake(self.to_right.carrier)
        link.act(link.peer.initiate(self.to_right, self.left.loop.now))
        self.run()
        assert link.peer.sending_session(self.left.loop.now) is not None


class TwoEnds:
    """Alice and Bob, who know each other, and the wire between them. Close them at the end of the test."""

    def __init__(self, alice: End, bob: End, carrier: CarrierName = "udp") -> None:
        self.loop = alice.loop
        self.alice, self.bob = alice, bob
        alice.know(bob.identity.public)
        bob.know(alice.identity.public)
        self.wire = Wire(alice, bob, carrier=carrier)

    def close(self) -> None:
        self.alice.close()
        self.bob.close()


def send_long_records(link: Link) -> None:
    """Make the link send long records, as after four REPORTs without loss that found this program the bottleneck."""
    span = link.records.span
    span.protection.wanted = False
    span._is_long = True
    span._follow(link.now)


def sealed(link: Link, plaintext: bytes) -> bytes:
    """Return a data message of this link's session with any plaintext."""
    session = link.peer.keys.current
    assert session is not None
    message = memoryview(bytearray(len(plaintext) + 32))
    session.seal_into(plaintext, message)
    return bytes(message)
