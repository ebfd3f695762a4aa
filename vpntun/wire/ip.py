"""What must be known of an inner IP packet. Law: ask for its length first; what that refuses is no packet.

A data message carries an IP packet and perhaps zeros behind it, WireGuard's padding. `length_of` says where the packet
ends, or refuses it; after that its addresses may be read. IPv4: RFC 791 section 3.1. IPv6: RFC 8200 section 3.
These run once a packet, so they look at single bytes and call nothing.
"""

from __future__ import annotations

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer

IPV4_HEADER_SIZE = 20
IPV6_HEADER_SIZE = 40

_ZEROS = bytes(15)


def length_of(packet: Buffer) -> int:
    """The packet's own length in bytes, headers included; what stands behind it is padding.

    Untrusted bytes. Raises BadPacket("bad inner packet") for a version that is neither 4 nor 6, a header that is cut
    short, an IPv4 header length below 20 or above the total length, and a length that exceeds what is there.
    """
    there = len(packet)
    if there >= IPV4_HEADER_SIZE:
        first = packet[0]
        version = first >> 4
        if version == 4:
            length = packet[2] << 8 | packet[3]
            header = (first & 15) << 2
            if IPV4_HEADER_SIZE <= header <= length <= there:
                return length
        elif version == 6 and there >= IPV6_HEADER_SIZE:
            length = IPV6_HEADER_SIZE + (packet[4] << 8 | packet[5])
            if length <= there:
                return length
    raise BadPacket("bad inner packet")


def source_of(packet: Buffer) -> bytes:
    """The source address, 4 or 16 bytes, of a packet that `length_of` accepted (nothing is checked again)."""
    return bytes(packet[12:16]) if packet[0] < 0x50 else bytes(packet[8:24])


def destination_of(packet: Buffer) -> bytes:
    """The destination address, 4 or 16 bytes, of a packet that `length_of` accepted (nothing is checked again)."""
    return bytes(packet[16:20]) if packet[0] < 0x50 else bytes(packet[24:40])


def hops_left(packet: Buffer) -> int:
    """The TTL or hop limit of a packet that `length_of` accepted."""
    return packet[8] if packet[0] < 0x50 else packet[7]


def take_hop(packet: memoryview) -> None:
    """One off the TTL or hop limit, which is 1 at least; IPv4's checksum follows by the difference (RFC 1624).

    A checksum that was wrong stays wrong.
    """
    if packet[0] < 0x50:
        packet[8] -= 1
        checksum = ((packet[10] << 8 | packet[11]) + 0x0100) % 0xFFFF
        packet[10], packet[11] = checksum >> 8, checksum & 0xFF
    else:
        packet[7] -= 1


def is_one_host(address: bytes) -> bool:
    """Whether an address is one host's, as seen from another: not unspecified, loopback, multicast or broadcast.

    A network's own broadcast address cannot be told from a host's.
    """
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and (address[15] > 1 or address[:15] != _ZEROS)


def is_link_local(address: bytes) -> bool:
    """Whether no router passes it on (RFC 3927 section 7, RFC 4291 section 2.5.6)."""
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
