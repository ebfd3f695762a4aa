"""Delivery of what links receive to the device, or through a forwarder to other links.

    bundle    each of its packets is delivered independently of the others
    packet    one IP packet, as WireGuard sends it

Every packet is checked before it is written to the device or forwarded, as the device's kind requires: IP packets in
datapath/routing/delivery.py, Ethernet frames in datapath/switching/delivery.py. A TCP packet of a bundle that is like
one which was checked needs no other check (wire/likeness.py). Consecutive segments of a flow that came one by one are
joined (wire/gro_coalescer.py). A superpacket gets a new virtio_net_hdr, made from the packet; one of the peer's making
is never passed on. A congestion mark of the outer header is copied into the packet (wire/ip.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Protocol

from vpntun.core.endpoint import Endpoint
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.tun.base import Device
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.ip import CHANGES_INNER
from vpntun.wire.likeness import LikenessCache, likeness_of
from vpntun.wire.message import Buffer
from vpntun.wire.record import BUNDLE_START, ENTRY, ENTRY_SIZE, SMALLEST_PACKET, packets_of
from vpntun.wire.vnet import GSO_NONE, NO_OFFLOAD, SEGMENT_SIZE, UNFINISHED, VNET_HEADER_SIZE, header_for

SHORTEST_JOINED = 88
"""Bytes of IP packet. Joining shorter ones, most of which are acknowledgements, would cost more than it saves."""
_ONE_PACKET = BUNDLE_START + ENTRY_SIZE
"""Offset of a bundle's first packet."""


class Forwarder(Protocol):
    """What sees packets before the device: the relay, the switch, or the mirror in front of either (mirror.py)."""

    def take(self, link: Link, header: Buffer, packet: memoryview) -> bool:
        """Forward or drop a packet of a link; return False if it is for the device.

        `header`: its virtio_net_hdr, made by this end.
        """

    def flush(self) -> None:
        """Send the forwarded packets."""

    def discard(self) -> None:
        """Drop the packets that wait to be forwarded."""


class Delivery(ABC):
    """Writer of all links' packets to the device. Raises DeviceError if the device has gone.

    forwarder   None if packets are for the device alone
    known       link and virtio_net_hdr of packets with a segment field; to be emptied whenever they may change

    `kind`: the kind of record that carries what this device carries, BUNDLE or FRAMES.
    """

    def __init__(self, device: Device, kind: int, drops: Counter[str]) -> None:
        self._device = device
        self._kind = kind
        self._drops = drops
        self.forwarder: Forwarder | None = None
        self.known: LikenessCache[int, tuple[Link, bytes]] = LikenessCache()
        self._header = memoryview(bytearray(VNET_HEADER_SIZE))
        self._joined_link: Link | None = None
        """The link whose packets wait to be joined. Packets of another link are never joined to them unchecked."""
        self._coalescer = GroCoalescer(self._write_joined, udp=device.takes_udp) if device.takes_tcp else None

    def flush(self) -> None:
        """Write the packets that waited to be joined, and send forwarded ones, now that no more are at hand."""
        self._flush_joined()
        if self.forwarder is not None:
            self.forwarder.flush()

    def discard(self) -> None:
        """Drop the packets that wait to be joined or forwarded, after an error has interrupted this."""
        if self._coalescer is not None:
            self._coalescer.discard()
        if self.forwarder is not None:
            self.forwarder.discard()

    def take_bundle(self, link: Link, record: memoryview, source: Endpoint, ecn: int = 0) -> None:
        """Deliver the packets of a bundle. `ecn`: the ECN field of the outer headers. Raises BadPacket."""
        if record[0] != self._kind:
            raise BadPacket("other kind of device")
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

    @abstractmethod
    def take_packet(self, link: Link, packet: memoryview, ecn: int = 0) -> None:
        """Deliver one packet as WireGuard sends it, with its padding. `ecn`: as in `take_bundle`. Raises BadPacket."""

    @abstractmethod
    def _take(self, link: Link, packet: memoryview, field: int) -> None:
        """Check and deliver one packet of a bundle. Raises BadPacket."""

    @abstractmethod
    def _mark(self, packet: memoryview, ecn: int) -> None:
        """Update a packet's ECN field from the outer header's. Untrusted bytes; raises nothing."""

    def _take_marked(self, link: Link, record: memoryview, source: Endpoint, ecn: int) -> None:
        """Deliver the packets of a bundle whose outer ECN field may change theirs."""
        for packet, field in packets_of(record):
            self._mark(packet, ecn)
            self._take_one(link, packet, field, source)

    def _take_one(self, link: Link, packet: memoryview, field: int, source: Endpoint) -> None:
        """Deliver or drop one packet of a bundle."""
        known = self.known.find(field, packet) if field else None
        try:
            if known is not None and known[0] is link:
                self._flush_joined()
                self._write(link, known[1], packet)
            else:
                self._take(link, packet, field)
        except BadPacket as bad:
            link.drop(bad, source)

    def _deliver(self, link: Link, packet: memoryview, length: int, field: int, lead: int = 0) -> None:
        """Deliver a packet that was checked, apart from its field. Raises BadPacket.

        `length`: bytes without padding. `lead`: bytes before its IP header.
        """
        coalescer = self._coalescer
        if coalescer is not None and length >= SHORTEST_JOINED + lead and not field & ~UNFINISHED:
            self._joined_link = link
            coalescer.add(packet, length, finished=not field, lead=lead)
            return
        self._flush_joined()  # packets that arrived earlier are written earlier
        if not field:
            self._write(link, NO_OFFLOAD, packet[:length])
            return
        header = self._header
        header_for(packet, length, field, header, lead)
        if header[1] != GSO_NONE:
            likeness = likeness_of(packet, field & SEGMENT_SIZE, lead=lead)
            self.known.keep(field, likeness, (link, bytes(header)))
        elif field == UNFINISHED:
            likeness = likeness_of(packet, longest=lead + SHORTEST_JOINED - 1, lead=lead)
            self.known.keep(field, likeness, (link, bytes(header)))
        self._write(link, header, packet)

    def _flush_joined(self) -> None:
        if self._coalescer is not None and self._coalescer.length:
            self._coalescer.flush()

    def _write(self, link: Link, header: memoryview | bytes, packet: memoryview) -> None:
        if self.forwarder is not None and self.forwarder.take(link, header, packet):
            return
        if not self._device.write(header, packet):
            self._drops["refused by the device"] += 1

    def _write_joined(self, packet: memoryview) -> None:
        if self._joined_link is not None:
            self._write(self._joined_link, packet[:VNET_HEADER_SIZE], packet[VNET_HEADER_SIZE:])
