"""Delivery of packets from links to the device, or with Relay to another link (relay.py).

    bundle    each of its packets is delivered independently of the others
    packet    one IP packet, as WireGuard sends it. Consecutive segments of a flow are joined (wire/gro_coalescer.py)

Every packet is checked here before it is written to the device or relayed: its version and length must be right, its
padding is removed, its source address must belong to the link, and router messages are dropped
(wire/router_messages.py). A TCP packet of a bundle that is like one which was checked needs no other check
(wire/likeness.py). A superpacket gets a new virtio_net_hdr, made from the packet; one of the peer's making is never
passed on. A congestion mark of the outer header is copied into the packet (wire/ip.py).
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from vpntun.core.endpoint import Endpoint
from vpntun.core.routes import RouteTable
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.tun.base import Device
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.ip import CHANGES_INNER, decapsulate, length_of, source_of
from vpntun.wire.likeness import LikenessCache, likeness_of
from vpntun.wire.message import Buffer
from vpntun.wire.record import BUNDLE_START, ENTRY, ENTRY_SIZE, SMALLEST_PACKET, packets_of
from vpntun.wire.router_messages import MAY_BE_ROUTER_MESSAGE, refuse_router_message
from vpntun.wire.vnet import (
    GSO_NONE,
    NO_OFFLOAD,
    SEGMENT_SIZE,
    UNFINISHED,
    VNET_HEADER_SIZE,
    header_for,
)

SHORTEST_JOINED = 88
"""Bytes. Joining shorter packets, most of which are acknowledgements, would cost more than it saves."""
_ONE_PACKET = BUNDLE_START + ENTRY_SIZE
"""Offset of a bundle's first packet."""


class Forwarder(Protocol):
    """What sees packets before the device: the relay, or the mirror in front of it (mirror.py)."""

    def take(self, header: Buffer, packet: memoryview) -> bool:
        """Forward or drop a packet, as Relay.take; return False if it is for the device."""

    def flush(self) -> None:
        """Send the forwarded packets."""

    def discard(self) -> None:
        """Drop the packets that wait to be forwarded."""


class Delivery:
    """Writer of all links' packets to the device. Raises DeviceError if the device has gone.

    `relay` is None without Relay, and while nobody captures packets.
    """

    def __init__(self, device: Device, routes: RouteTable[Link], drops: Counter[str]) -> None:
        self._device = device
        self._routes = routes
        self._drops = drops
        self.relay: Forwarder | None = None
        self._header = memoryview(bytearray(VNET_HEADER_SIZE))
        self._known: LikenessCache[int, tuple[Link, bytes]] = LikenessCache()
        """Link and virtio_net_hdr of packets with a segment field."""
        routes.empty_on_change(self._known)
        self._joined_link: Link | None = None
        """The link whose packets wait to be joined. Packets of another link are never joined to them unchecked."""
        self._coalescer = GroCoalescer(self._write_joined, udp=device.takes_udp) if device.takes_tcp else None

    def take_packet(self, link: Link, packet: memoryview, ecn: int = 0) -> None:
        """Deliver one packet as WireGuard sends it, with its padding. `ecn`: as in `take_bundle`. Raises BadPacket."""
        length = length_of(packet)
        if ecn & CHANGES_INNER:
            decapsulate(packet, ecn)
        if self._routes.find(source_of(packet)) is not link:
            raise BadPacket("source not allowed")
        if packet[9 if packet[0] < 0x50 else 6] in MAY_BE_ROUTER_MESSAGE:
            refuse_router_message(packet, length)
        if self._coalescer is not None:
            if link is not self._joined_link:
                self._flush_joined()
                self._joined_link = link
            self._coalescer.add(packet, length)
        else:
            self._write(NO_OFFLOAD, packet[:length])

    def flush(self) -> None:
        """Write the packets that waited to be joined, and send relayed ones, now that no more are at hand."""
        self._flush_joined()
        if self.relay is not None:
            self.relay.flush()

    def discard(self) -> None:
        """Drop the packets that wait to be joined or relayed, after an error has interrupted this."""
        if self._coalescer is not None:
            self._coalescer.discard()
        if self.relay is not None:
            self.relay.discard()

    def _flush_joined(self) -> None:
        if self._coalescer is not None and self._coalescer.length:
            self._coalescer.flush()

    def take_bundle(self, link: Link, record: memoryview, source: Endpoint, ecn: int = 0) -> None:
        """Deliver the packets of a BUNDLE. `ecn`: the ECN field of the outer headers. Raises BadPacket."""
        coalescer, size = self._coalescer, len(record) - _ONE_PACKET
        if coalescer is not None and coalescer.length and link is not self._joined_link:
            coalescer.flush()
        if ecn & CHANGES_INNER:
            self._take_marked(link, record, source, ecn)
            return
        if size >= SMALLEST_PACKET:
            length, field = ENTRY.unpack_from(record, BUNDLE_START)
            if length == size:  # it is alone
                packet = record[_ONE_PACKET:]
                may_join = coalescer is not None and coalescer.length > 0 and not field & ~UNFINISHED
                if coalescer is None or not (may_join and coalescer.extend(packet, length, finished=not field)):
                    self._take_one(link, packet, field, source)
                return
        for packet, field in packets_of(record):
            self._take_one(link, packet, field, source)

    def _take_marked(self, link: Link, record: memoryview, source: Endpoint, ecn: int) -> None:
        """Deliver the packets of a BUNDLE whose outer ECN field may change theirs."""
        for packet, field in packets_of(record):
            decapsulate(packet, ecn)
            self._take_one(link, packet, field, source)

    def _take_one(self, link: Link, packet: memoryview, field: int, source: Endpoint) -> None:
        """Deliver or drop one packet of a BUNDLE."""
        known = self._known.find(field, packet) if field else None
        try:
            if known is not None and known[0] is link:
                self._flush_joined()
                self._write(known[1], packet)
            else:
                self._take(link, packet, field)
        except BadPacket as bad:
            link.drop(bad, source)

    def _take(self, link: Link, packet: memoryview, field: int) -> None:
        """Check and deliver one packet of a BUNDLE. Raises BadPacket."""
        length = length_of(packet)
        if self._routes.find(source_of(packet)) is not link:
            raise BadPacket("source not allowed")
        if packet[9 if packet[0] < 0x50 else 6] in MAY_BE_ROUTER_MESSAGE:
            refuse_router_message(packet, length)
        coalescer = self._coalescer
        if coalescer is not None and length >= SHORTEST_JOINED and not field & ~UNFINISHED:
            self._joined_link = link
            coalescer.add(packet, length, finished=not field)
            return
        self._flush_joined()  # packets that arrived earlier are written earlier
        if not field:
            self._write(NO_OFFLOAD, packet[:length])
            return
        header = self._header
        header_for(packet, length, field, header)
        if header[1] != GSO_NONE:
            self._known.keep(field, likeness_of(packet, field & SEGMENT_SIZE), (link, bytes(header)))
        elif field == UNFINISHED:
            self._known.keep(field, likeness_of(packet, longest=SHORTEST_JOINED - 1), (link, bytes(header)))
        self._write(header, packet)

    def _write(self, header: memoryview | bytes, packet: memoryview) -> None:
        if self.relay is not None and self.relay.take(header, packet):
            return
        if not self._device.write(header, packet):
            self._drops["refused by the device"] += 1

    def _write_joined(self, packet: memoryview) -> None:
        self._write(packet[:VNET_HEADER_SIZE], packet[VNET_HEADER_SIZE:])
