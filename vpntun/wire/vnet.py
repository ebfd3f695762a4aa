"""virtio_net_hdr, the 10 bytes before each packet of a device with offloads: parsing and building.

    0  flags        1: NEEDS_CSUM, the checksum is unfinished
    1  gso_type     0 none, 1 TCPv4, 3 UFO (never used here), 4 TCPv6, 5 UDP; 0x80: TCP with CWR
    2  hdr_len      size of all headers in bytes    (u16s in the machine's own byte order)
    4  gso_size     payload bytes of each segment
    6  csum_start   offset of the first byte that the checksum covers
    8  csum_offset  offset of the checksum's field, counted from csum_start

(include/uapi/linux/virtio_net.h, drivers/net/tun.c.) Between two vpntuns only the 16-bit *segment field* of a BUNDLE
replaces it: bits 0-13 gso_size, 0 for an ordinary packet; bit 15: the checksum is unfinished; bit 14 is never sent. Of
a peer's data only gso_size, once checked, gets into a header; the rest is derived from the packet.

    device -> segment_field_of(header, packet) -> BUNDLE -> header_for(packet, length, field, out) -> device

A packet of a TAP device is a frame: `lead` bytes stand before its IP header, an Ethernet header and perhaps VLAN tags.
All offsets in the header count from the frame's first byte.

Interface:
    segment_field_of(header, packet, lead) -> int
    segment_field_of_frame(header, frame, lead) -> int      for a frame that may carry anything
    header_for(packet, length, field, out, lead)
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP, UDP_CHECKSUM, finish_transport
from vpntun.wire.ip import length_of
from vpntun.wire.message import Buffer
from vpntun.wire.transport_header import TCP_CHECKSUM, shape_of

VNET_HEADER = struct.Struct("=BBHHHH")
VNET_HEADER_SIZE = 10
NO_OFFLOAD = bytes(VNET_HEADER_SIZE)

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP = 0, 1, 4, 5
GSO_ECN = 0x80

TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6 = 0x01, 0x02, 0x04, 0x20, 0x40

UNFINISHED = 0x8000
SPLIT_FIRST = 0x4000
SEGMENT_SIZE = 0x3FFF

SMALLEST_TCP_SEGMENT = 48
MOST_TCP_SEGMENTS, MOST_UDP_SEGMENTS = 256, 64

_CWR = 0x80


def segment_field_of(header: Buffer, packet: memoryview, lead: int = 0) -> int:
    """Return the segment field for a packet that the kernel gave with `header`.

    `packet` is exactly the IP packet, behind `lead` other bytes.

    The field cannot express a checksum other than the packet's own TCP's or UDP's (that of a packet inside a VXLAN
    tunnel, say), so such a checksum is finished here, in the packet. SPLIT_FIRST is set on superpackets that no peer
    would take whole, for `Splitter` to cut: TCP segments below 48 bytes or more than 256 of them, and more than 64 UDP
    segments.

    Raises BadPacket("bad virtio header") for a header that does not fit the packet, or as `shape_of` does.
    """
    flags: int
    gso_size: int
    flags, gso_type, _, gso_size, start, offset = VNET_HEADER.unpack_from(header)
    if lead:
        packet, start = packet[lead:], start - lead
    if gso_type == GSO_NONE:
        if not flags & NEEDS_CSUM:
            return 0
        if _is_own_checksum(packet, start, offset):
            return UNFINISHED
        _finish(packet, start, offset)
        return 0
    protocol, found, end = shape_of(packet, len(packet))
    kind = gso_type & ~GSO_ECN
    if kind != _gso_type_of(packet, protocol) or found != start or not flags & NEEDS_CSUM:
        raise BadPacket("bad virtio header")
    if not 0 < gso_size <= SEGMENT_SIZE:
        raise BadPacket("bad virtio header")
    payload = len(packet) - end
    if payload <= gso_size:
        return UNFINISHED
    if _is_taken_whole(protocol, payload, gso_size):
        return UNFINISHED | gso_size
    return UNFINISHED | SPLIT_FIRST | gso_size


def segment_field_of_frame(header: Buffer, frame: memoryview, lead: int) -> int:
    """Return the segment field for a frame whose IP header begins at `lead`, as `ip_at` found it; 0: it has none.

    The field describes only a frame that ends where its IP packet ends. In any other one, with padding or without IP,
    an unfinished checksum is finished here, over all bytes to the frame's end, as the kernel would do it. Raises
    BadPacket as `segment_field_of` does; "bad virtio header" for a superpacket without IP.
    """
    if lead and ends_with_ip(frame, lead):
        return segment_field_of(header, frame, lead)
    flags, gso_type, _, _, start, offset = VNET_HEADER.unpack_from(header)
    if gso_type != GSO_NONE:
        raise BadPacket("bad virtio header")
    if flags & NEEDS_CSUM:
        _finish(frame, start, offset)
    return 0


def ends_with_ip(frame: Buffer, lead: int) -> bool:
    """Return whether the bytes from `lead` on are exactly one IP packet. Untrusted bytes; raises nothing."""
    try:
        return length_of(frame[lead:]) == len(frame) - lead
    except BadPacket:
        return False


def header_for(packet: Buffer, length: int, field: int, out: bytearray | memoryview, lead: int = 0) -> None:
    """Write the device's header for a packet of a BUNDLE into the first 10 bytes of `out`.

    `length`: the result of `length_of`, plus `lead`, the number of bytes before the IP header. `field` comes from the
    peer and is untrusted. Everything in the header but gso_size is derived from the packet alone. Raises BadPacket:
    "bad segment field" (bit 14 set, or a superpacket that claims a finished checksum), "bad superpacket length" (IP's
    length is not that of the bytes given), "bad segment size" (TCP below 48, or more than 256 TCP or 64 UDP segments),
    or as `shape_of` does.
    """
    if not field:
        out[:VNET_HEADER_SIZE] = NO_OFFLOAD
        return
    if field & SPLIT_FIRST or not field & UNFINISHED:
        raise BadPacket("bad segment field")
    if length != len(packet):
        raise BadPacket("bad superpacket length")
    inner = packet
    if lead:
        inner = packet[lead:]
    protocol, start, end = shape_of(inner, length - lead)
    offset = TCP_CHECKSUM if protocol == TCP else UDP_CHECKSUM
    size = field & SEGMENT_SIZE
    payload = length - lead - end
    if not size or payload <= size:
        VNET_HEADER.pack_into(out, 0, NEEDS_CSUM, GSO_NONE, 0, 0, lead + start, offset)
        return
    if not _is_taken_whole(protocol, payload, size):
        raise BadPacket("bad segment size")
    gso_type = _gso_type_of(inner, protocol)
    if protocol == TCP and inner[start + 13] & _CWR:
        gso_type |= GSO_ECN
    VNET_HEADER.pack_into(out, 0, NEEDS_CSUM, gso_type, lead + end, size, lead + start, offset)


def _finish(packet: memoryview, start: int, offset: int) -> None:
    """Finish the checksum at start + offset in place. Raises BadPacket if its field lies outside the packet."""
    if start < 0 or start + offset + 2 > len(packet):
        raise BadPacket("bad virtio header")
    finish_transport(packet, start, offset)


def _is_own_checksum(packet: memoryview, start: int, offset: int) -> bool:
    """Whether the checksum at start + offset belongs to the packet's own TCP or UDP header."""
    try:
        protocol, found, _ = shape_of(packet, len(packet))
    except BadPacket:
        return False
    return found == start and offset == (TCP_CHECKSUM if protocol == TCP else UDP_CHECKSUM)


def _gso_type_of(packet: Buffer, protocol: int) -> int:
    if protocol != TCP:
        return GSO_UDP
    return GSO_TCPV4 if packet[0] < 0x50 else GSO_TCPV6


def _is_taken_whole(protocol: int, payload: int, size: int) -> bool:
    """Whether peers take the superpacket uncut; tiny segments cost a forwarding kernel tens of ms on one write."""
    if protocol == TCP:
        return size >= SMALLEST_TCP_SEGMENT and payload <= size * MOST_TCP_SEGMENTS
    return payload <= size * MOST_UDP_SEGMENTS
