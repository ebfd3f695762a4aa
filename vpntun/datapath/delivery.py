"""Delivery of packets from links to the device, or with Relay to another link (relay.py).

    bundle    each of its packets is delivered independently of the others
    packet    one IP packet, as WireGuard sends it. Consecutive segments of a flow are joined (wire/gro_coalescer.py)

Every packet is checked here before it is written to the device or relayed: its version and length must be right, its
padding is removed, its source address must belong to the link, and router messages are dropped
(wire/router_messages.py). A superpacket gets a new virtio_net_hdr, made from the packet; one of the peer's making is
never passed on.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from vpntun.core.endpoint import Endpoint
from vpntun.core.routes import RouteTable
from vpntun.datapath.link import Link
from vpntun.datapath.relay import Relay
from vpntun.errors import BadPacket
from vpntun.tun.base import Device
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.ip import length_of, source_of
from vpntun.wire.likeness import Likeness, likeness_of
from vpntun.wire.record import BUNDLE_START, ENTRY, ENTRY_SIZE, SMALLEST_PACKET, packets_of
from vpntun.wire.router_messages import MAY_BE_ROUTER_MESSAGE, refuse_router_message
from vpntun.wire.vnet import (
    GSO_NONE,
    NO_OFFLOAD,
    UNFINISHED,
    VNET_HEADER,
    VNET_HEADER_SIZE,
    header_for,
)

SHORTEST_JOINED = 88
"""Bytes. Joining shorter packets, most of which are acknowledgements, would cost more than it saves."""
MOST_REMEMBERED = 64
SMALLEST_REMEMBERED = 256
"""Segment size in bytes, from which on no superpacket has too many segments."""
_ONE_PACKET = BUNDLE_START + ENTRY_SIZE
"""Offset of a bundle's first packet."""


class _Known(NamedTuple):
    """Header of the superpackets, or packets, from one link that are like one which was checked."""

    likeness: Likeness
    link: Link
    header: bytes
    longer_than: int
    """Bytes of a packet that is no superpacket; 0 for the header of ordinary packets."""

    def covers(self, packet: memoryview) -> bool:
        """Return whether the packet is like the one that was checked."""
        length = len(packet)
        return length > self.longer_than and self.likeness.covers(packet, length)


class Delivery:
    """Writer of all links' packets to the device. Raises DeviceError if the device has gone.

    `relay` is None without Relay.
    """

    def __init__(self, device: Device, routes: RouteTable[Link], drops: Counter[str]) -> None:
        self._device = device
        self._routes = routes
        self._drops = drops
        self.relay: Relay | None = None
        self._header = memoryview(bytearray(VNET_HEADER_SIZE))
        self._known: dict[int, _Known] = {}
        """By segment field."""
        routes.empty_on_change(self._known)
        self._joined_link: Link | None = None
        """The link whose packets wait to be joined. Packets of another link are never joined to them unchecked."""
        self._coalescer = GroCoalescer(self._write_joined, udp=device.takes_udp) if device.takes_tcp else None

    def take_packet(self, link: Link, packet: memoryview) -> None:
        """Deliver one packet as WireGuard sends it, with its padding. Raises BadPacket."""
        length = length_of(packet)
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

    def take_bundle(self, link: Link, record: memoryview, source: Endpoint) -> None:
        """Deliver the packets of a BUNDLE. Raises BadPacket."""
        coalescer, size = self._coalescer, len(record) - _ONE_PACKET
        if coalescer is not None and coalescer.length and link is not self._joined_link:
            coalescer.flush()
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

    def _take_one(self, link: Link, packet: memoryview, field: int, source: Endpoint) -> None:
        """Deliver or drop one packet of a BUNDLE."""
        alike = self._known.get(field)
        try:
            if alike is not None and alike.link is link and alike.covers(packet):
                self._flush_joined()
                self._write(alike.header, packet)
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
        header_for(packet, length, field, self._header)
        self._remember(link, packet, field)
        self._write(self._header, packet)

    def _remember(self, link: Link, packet: memoryview, field: int) -> None:
        """Remember the header of a TCP packet with this field, for those that are like it."""
        _, gso_type, headers, size, _, _ = VNET_HEADER.unpack_from(self._header)
        if gso_type != GSO_NONE and size < SMALLEST_REMEMBERED:
            return
        likeness = likeness_of(packet)
        if likeness is not None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[field] = _Known(likeness, link, bytes(self._header), headers + size)

    def _write(self, header: memoryview | bytes, packet: memoryview) -> None:
        if self.relay is not None and self.relay.take(header, packet):
            return
        if not self._device.write(header, packet):
            self._drops["refused by the device"] += 1

    def _write_joined(self, packet: memoryview) -> None:
        self._write(packet[:VNET_HEADER_SIZE], packet[VNET_HEADER_SIZE:])
