"""Whole ends of a link without root: the real peer, link and data path, on a device and on carriers made here."""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address, ip_network
from typing import cast

from tests.machine import HandLoop
from tests.wire.packets import finished, slow_sum, start_of
from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import Flow, Outcome
from vpntun.carriers.tcp import TcpConnection
from vpntun.carriers.udp import SO_SNDBUFFORCE, UdpEndpoint
from vpntun.core.events import Endpoint, Event
from vpntun.core.records.protocol import RecordProtocol
from vpntun.core.routes import RouteTable
from vpntun.core.selection.server import ServerCarriers
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.session import Session
from vpntun.datapath.bundler import Bundler
from vpntun.datapath.delivery import Delivery
from vpntun.datapath.inbound import Inbound
from vpntun.datapath.link import Link
from vpntun.datapath.links import takes_of
from vpntun.datapath.loopguard import LoopGuard
from vpntun.datapath.outbound import Outbound
from vpntun.datapath.plain import PlainSender
from vpntun.datapath.relay import Relay
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.errors import BadPacket, DeviceError
from vpntun.netconf.addresses import OwnAddresses
from vpntun.runtime.schedule import Schedule
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS, TunDevice
from vpntun.types import NEVER, Carrier
from vpntun.wire.framing import SharedBuffer
from vpntun.wire.message import Buffer
from vpntun.wire.transport import shape_of
from vpntun.wire.vnet import NEEDS_CSUM, NO_OFFLOAD, VNET_HEADER, VNET_HEADER_SIZE

ALICE, BOB, CAROL, STRANGER = (KeyPair.of(clamp(letter * 32)) for letter in (b"a", b"b", b"c", b"s"))
PSK = b"p" * 32
EVERYTHING = ("0.0.0.0/0", "::/0")


def ipv4(source: str, destination: str, payload: bytes = b"", *, total: int | None = None, words: int = 5) -> bytes:
    """An IPv4 packet; `total` and `words` are what its header says of its length, true unless given."""
    length = 20 + len(payload) if total is None else total
    header = bytes([0x40 | words, 0]) + length.to_bytes(2, "big") + bytes([0, 0, 0x40, 0, 64, 17, 0, 0])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


def ipv6(source: str, destination: str, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """An IPv6 packet; `length` is what its header says of its payload's, true unless given."""
    said = len(payload) if length is None else length
    header = bytes([0x60, 0, 0, 0]) + said.to_bytes(2, "big") + bytes([59, 64])
    return header + ip_address(source).packed + ip_address(destination).packed + payload


class FakeDevice(TunDevice):
    """A TUN device whose other side is the test: what the kernel would send, and what it was given.

    `packets` are what was written, `headers` what stood before each. `offloads`: those that it takes.
    """

    def __init__(self, mtu: int = 1420, offloads: int = TCP_OFFLOADS | UDP_OFFLOADS) -> None:
        self.name = "fake0"
        self.created = True
        self.offloads = offloads
        self.packets: list[bytes] = []
        self.headers: list[bytes] = []
        self.takes_packets = True
        self.gone = False
        self._mtu = mtu
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._near, self._far):
            end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE if os.geteuid() == 0 else socket.SO_SNDBUF, 1 << 22)
            end.setblocking(False)

    @property
    def mtu(self) -> int:
        return self._mtu

    @property
    def is_up(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._near.fileno()

    def read_into(self, header: memoryview, packet: memoryview) -> int:
        if self.gone:
            raise DeviceError("the device fake0 has gone")
        try:
            return self._near.recvmsg_into([header, packet])[0] - len(header)
        except BlockingIOError:
            return 0

    def write(self, header: Buffer, packet: Buffer) -> bool:
        if self.gone:
            raise DeviceError("the device fake0 has gone")
        assert len(header) == VNET_HEADER_SIZE
        if self.takes_packets:
            self.packets.append(bytes(packet))
            self.headers.append(bytes(header))
        return self.takes_packets

    def close(self) -> None:
        self._near.close()
        self._far.close()

    def from_the_kernel(self, *packets: bytes | tuple[bytes, int]) -> None:
        """The kernel routes these into the device: packets, or superpackets, each with its segment size."""
        for each in packets:
            packet, size = each if isinstance(each, tuple) else (each, 0)
            self._far.sendmsg([virtio_header(packet, size) if isinstance(each, tuple) else NO_OFFLOAD, packet])

    @property
    def arrived(self) -> list[bytes]:
        """What was written, superpackets as the single packets that the kernel makes of them."""
        return [
            single
            for packet, header in zip(self.packets, self.headers, strict=True)
            for single in singles_of(packet, header)
        ]


def virtio_header(packet: bytes, size: int) -> bytes:
    """What the kernel puts before a superpacket with segments of `size`; 0: an ordinary packet, checksum unfinished."""
    protocol, start, end = shape_of(packet, len(packet))
    kind = 0
    if size and len(packet) - end > size:
        kind = 5 if protocol == 17 else 1 if packet[0] < 0x50 else 4
    offset = 6 if protocol == 17 else 16
    return VNET_HEADER.pack(NEEDS_CSUM, kind, end if kind else 0, size if kind else 0, start, offset)


def singles_of(packet: bytes, header: bytes) -> list[bytes]:
    """The packets that the kernel makes of what is written to a device: split, checksums finished.

    By another way than the program's own: it is built anew, segment by segment, by the tests' own word-by-word sums.
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


class FakePath:
    """A carrier's path that keeps what is sent on it, datagram by datagram (over TCP, message by message).

    `urgent` names what went ahead of data, `calls` what was sent in one call each. `largest`: the datagrams that this
    host sends whole. `blocks_after`: calls until the path takes no more.
    """

    def __init__(self, name: str, carrier: Carrier = "udp") -> None:
        self._name = name
        self._carrier: Carrier = carrier
        self.where = f"{name}:55555"
        self.ipv6 = False
        self.flow = Flow(17 if carrier == "udp" else 6, b"", 55555, bytes((192, 0, 2, 1)), 55555)
        self.sent: list[bytes] = []
        self.urgent: list[bytes] = []
        self.calls: list[list[bytes]] = []
        self.is_ready = True
        self.is_clogged = False
        self.can_deliver = True
        self.largest = 65507
        self.blocks_after: int | None = None
        self.hangs_up = False
        self._behind = 0
        self.peer: Peer | None = None
        self.expects: Peer | None = None
        self.refuses: Peer | None = None

    def __str__(self) -> str:
        return self._name

    @property
    def carrier(self) -> Carrier:
        return self._carrier

    def clogged(self) -> bool:
        return self.is_clogged

    def ready(self) -> bool:
        return self.is_ready

    def send(self, buffers: list[memoryview], segment: int = 0, *, dont_fragment: bool = True) -> Outcome:
        if not self.is_ready:  # a superpacket may go as two batches to a WireGuard, of which the first is held
            self._behind += 1
            assert self._behind <= 2, "data was sent to a path that is not ready"
        sent = b"".join(buffers)
        step = segment or max(1, len(sent))
        messages = [sent[at : at + step] for at in range(0, len(sent), step)]
        assert len(messages) <= 64
        if not self.can_deliver:
            return Outcome.UNDELIVERABLE
        if self._carrier == "udp" and ((dont_fragment and max(map(len, messages)) > self.largest) or len(sent) > 65507):
            return Outcome.TOO_BIG if dont_fragment else Outcome.UNDELIVERABLE
        self.sent += messages
        self.calls.append(messages)
        if self.blocks_after is not None:
            self.blocks_after -= 1
            self.is_ready = self.blocks_after > 0
        return Outcome.SENT if self.is_ready else Outcome.HELD

    def send_first(self, message: Buffer) -> Outcome:
        self.urgent.append(bytes(message))
        if not self.can_deliver:
            return Outcome.UNDELIVERABLE
        self.sent.append(bytes(message))
        return Outcome.SENT

    def opens(self, blocks_after: int | None = None) -> None:
        """The path takes data again, so many calls."""
        self.is_ready, self.blocks_after, self._behind = True, blocks_after, 0

    def expect(self, peer: Peer) -> None:
        self.expects = peer

    def belongs_to(self, peer: Peer) -> None:
        if peer is self.refuses:
            raise BadPacket("another peer's connection")
        self.peer = peer

    def hang_up_later(self) -> None:
        self.hangs_up = True

    def take(self) -> list[bytes]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


def new_accepted(loop: HandLoop) -> AcceptedConnections:
    """A registry of accepted connections that tells nobody."""

    def ignore(_: TcpConnection) -> None:
        return

    return AcceptedConnections(loop, SharedBuffer(), ignore, ignore)


class WireGuardsRecordProtocol(RecordProtocol):
    """A plain WireGuard's: it says no record, and drops those of others."""

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
    def report_due(self) -> float:
        return NEVER

    @property
    def deadline(self) -> float:
        return NEVER


class Stamps:
    """Timestamps that count."""

    def __init__(self, start: int = 0) -> None:
        self._last = start

    def next(self) -> bytes:
        self._last += 1
        return self._last.to_bytes(12, "big")


class End:
    """One machine: an identity, a device, and a link to each peer it knows.

    `plain`: it is a WireGuard, without records. `knows_vpntun`: its peers are vpntuns, and it waits for their HELLO.
    `relays_as`: its own addresses, where it relays.
    """

    def __init__(
        self,
        identity: KeyPair,
        loop: HandLoop,
        mtu: int = 1420,
        stamps: Stamps | None = None,
        *,
        offloads: int = TCP_OFFLOADS | UDP_OFFLOADS,
        plain: bool = False,
        knows_vpntun: bool = False,
        relays_as: tuple[str, ...] | None = None,
        device: FakeDevice | None = None,
    ) -> None:
        self.identity = identity
        self.loop = loop
        self.mtu = mtu
        self.drops: Counter[str] = Counter()
        self.device = device or FakeDevice(mtu, offloads)
        self.node = Node(identity)
        self.routes: RouteTable[Link] = RouteTable()
        self.links: dict[Peer, Link] = {}
        self.seal_buffer = SealBuffer()
        self.bundler = Bundler(PlainSender(mtu, self.seal_buffer), self.seal_buffer)
        relay = None if relays_as is None else self._relay(relays_as)
        self.delivery = Delivery(self.device, self.routes, self.drops, relay)
        self.inbound = Inbound(self.node, self.links, self.delivery, loop, self.drops)
        self.guard = LoopGuard(loop, self.routes, lambda flow: flow.destination in self.inside)
        self.inside: set[bytes] = set()
        self.outbound = Outbound(self.device, self.routes, self.bundler, self.guard, loop, self.drops)
        self.schedule = Schedule(loop.internal_errors)
        loop.internal_errors.recover_by(self.bundler.discard, self.delivery.discard)
        self._plain, self._knows_vpntun = plain, knows_vpntun
        self._stamps = stamps or Stamps()
        loop.watch(self.device.fileno(), self.outbound.read_device)

    def know(self, public: bytes, allowed: Iterable[str] = EVERYTHING, psk: bytes = PSK) -> Link:
        """Have a link to a peer."""
        rng = random.Random(7)
        may_be_at = self.guard.for_a_peer()
        peer = Peer(self.identity, public, psk, self.node.indices, self._stamps, rng, may_be_at=may_be_at)
        self.node.add(peer)
        selector = ServerCarriers(peer, rng)
        link = Link(peer, selector, self.records(), self.loop, self.schedule, self.seal_buffer, self.drops)
        self.connect(link, allowed)
        return link

    def _relay(self, addresses: tuple[str, ...]) -> Relay:
        own = [(ip_address(address).packed, self.device.name) for address in addresses]
        found = OwnAddresses(self.device.name, lambda: False, lambda: own, self.loop.clock)
        return Relay(self.mtu, self.routes, self.bundler, found, self.loop.clock)

    def records(self) -> RecordProtocol:
        """A new one."""
        kind = WireGuardsRecordProtocol if self._plain else RecordProtocol
        return kind(takes_of(self.device), self.mtu, self.loop.now, peer_is_vpntun=self._knows_vpntun)

    def connect(self, link: Link, allowed: Iterable[str] = EVERYTHING) -> None:
        """Tie a link in."""
        self.links[link.peer] = link
        link.on_ready = partial(self.bundler.drain, link)
        for network in allowed:
            self.routes.add(ip_network(network), link)

    def pump(self) -> None:
        """The paths of all links are ready again."""
        for link in self.links.values():
            self.bundler.drain(link)

    @property
    def link(self) -> Link:
        """The only link."""
        (only,) = self.links.values()
        return only

    def take(self, message: bytes, path: FakePath) -> None:
        """A message comes in by `path`, or a piece of one."""
        self.take_together([message], path)

    def take_together(self, messages: Iterable[bytes], path: FakePath) -> None:
        """They come in by one read."""
        self.inbound._last = None  # as a read begins
        for message in messages:
            if path.carrier == "udp":
                self.inbound.take_datagram(memoryview(bytearray(message)), cast(UdpEndpoint, path))
            else:
                self.inbound.take(memoryview(bytearray(message)), path)
        self.delivery.flush()

    def send(self, *packets: bytes | tuple[bytes, int]) -> None:
        """The kernel hands packets to the device, and they go where they go."""
        self.device.from_the_kernel(*packets)
        self.loop.poll()

    def close(self) -> None:
        self.loop.forget(self.device.fileno())
        self.device.close()


class Wire:
    """The path between two ends, one object at each: what one sends, the other receives when the wire is run."""

    def __init__(self, left: End, right: End, name: str = "", carrier: Carrier = "udp") -> None:
        self.left, self.right = left, right
        self.to_right = FakePath(f"right{name}", carrier)
        self.to_left = FakePath(f"left{name}", carrier)

    def run(self) -> int:
        """Carry messages until none is under way; returns how many."""
        count = 0
        while self.to_right.sent or self.to_left.sent:
            for message in self.to_right.take():
                self.right.take(message, self.to_left)
                count += 1
            for message in self.to_left.take():
                self.left.take(message, self.to_right)
                count += 1
        return count

    def carry_blocking(self, calls: int, *packets: bytes | tuple[bytes, int]) -> None:
        """Have the left end send over a path that takes so many calls and then blocks, until nothing waits."""
        self.to_right.opens(calls)
        self.left.send(*packets)
        for _ in range(2000):
            self.run()
            if not any(link.queue for link in self.left.links.values()):
                break
            self.to_right.opens(calls)
            self.left.pump()

    def shake_hands(self) -> None:
        """A session between the two, asked for by the left one."""
        link = next(link for link in self.left.links.values() if link.peer.public == self.right.identity.public)
        link.peer.forget_handshake(self.to_right.carrier)
        link.act(link.peer.initiate(self.to_right, self.left.loop.now))
        self.run()
        assert link.peer.sending_session(self.left.loop.now) is not None


def send_long_records(link: Link) -> None:
    """As after four REPORTs that found this program to be the bottleneck, and nothing lost."""
    span = link.records.span
    span.protection.wanted = False
    span._is_long = True
    span._follow(link.now)


def sealed(link: Link, plaintext: bytes) -> bytes:
    """A data message of this link's session, whatever the plaintext."""
    session = link.peer.keys.current
    assert session is not None
    message = memoryview(bytearray(len(plaintext) + 32))
    session.seal_into(plaintext, message)
    return bytes(message)
