"""Fields of an inner IP packet: length, addresses, hop limit, and TOS byte.

A data message carries an IP packet and perhaps zeros behind it, WireGuard's padding. Call `length_of` first: it returns
where the packet ends, or refuses it. The other functions expect a packet that it accepted. IPv4: RFC 791 section 3.1.
IPv6: RFC 8200 section 3. These functions run once per packet, so they read single bytes and call no other function of
this program.

The TOS byte, IPv6's traffic class, has DSCP in its upper six bits (RFC 2474) and ECN in its lower two (RFC 3168). The
outer packet gets the inner one's ECN field. On arrival the outer field changes the inner one (`decapsulate`):

    inner \\ outer   Not-ECT    ECT(0)     ECT(1)     CE
    Not-ECT         Not-ECT    Not-ECT    Not-ECT    Not-ECT
    ECT(0)          ECT(0)     ECT(0)     ECT(1)     CE
    ECT(1)          ECT(1)     ECT(1)     ECT(1)     CE
    CE              CE         CE         CE         CE
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer

IPV4_HEADER_SIZE = 20
IPV6_HEADER_SIZE = 40

NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
ECN, DSCP = 0x03, 0xFC
"""The bits of each field in the TOS byte."""
CHANGES_INNER = 0x01
"""The bit that tells the outer fields that may change inner ones, ECT(1) and CE, from the others."""
MAY_HAVE_ECN = 0x33
"""A packet whose second byte has none of these bits is Not-ECT: IPv4 has ECN in 0x03 there, IPv6 in 0x30."""

_ZEROS = bytes(15)
_read_beginning = struct.Struct("!BxH").unpack_from
"""Reads IPv4's first byte (version and header length) and its total length."""
_read_source_v4, _read_destination_v4 = struct.Struct("!12x4s").unpack_from, struct.Struct("!16x4s").unpack_from
_read_source_v6, _read_destination_v6 = struct.Struct("!8x16s").unpack_from, struct.Struct("!24x16s").unpack_from


def length_of(packet: Buffer) -> int:
    """The packet's own length in bytes, headers included; any bytes behind it are padding.

    Untrusted bytes. Raises BadPacket("bad inner packet") for a version other than 4 and 6, a truncated header, an IPv4
    header length below 20 or above the total length, and a length greater than the bytes given.
    """
    there = len(packet)
    if there >= IPV4_HEADER_SIZE:
        length: int
        first, length = _read_beginning(packet)
        if 0x45 <= first <= 0x4F:
            if (first & 15) << 2 <= length <= there:
                return length
        elif first >> 4 == 6 and there >= IPV6_HEADER_SIZE:
            length = IPV6_HEADER_SIZE + (packet[4] << 8 | packet[5])
            if length <= there:
                return length
    raise BadPacket("bad inner packet")


def source_of(packet: Buffer) -> bytes:
    """The source address, 4 or 16 bytes, of a packet that `length_of` accepted (this checks nothing again)."""
    source: bytes = (_read_source_v4(packet) if packet[0] < 0x50 else _read_source_v6(packet))[0]
    return source


def destination_of(packet: Buffer) -> bytes:
    """The destination address, 4 or 16 bytes, of a packet that `length_of` accepted (this checks nothing again)."""
    destination: bytes = (_read_destination_v4(packet) if packet[0] < 0x50 else _read_destination_v6(packet))[0]
    return destination


def hops_left(packet: Buffer) -> int:
    """The TTL or hop limit of a packet that `length_of` accepted."""
    return packet[8] if packet[0] < 0x50 else packet[7]


def take_hop(packet: memoryview) -> None:
    """Decrement the TTL or hop limit, which must be at least 1; adjust IPv4's header checksum to match (RFC 1624).

    A header checksum that was wrong stays wrong.
    """
    if packet[0] < 0x50:
        packet[8] -= 1
        checksum = ((packet[10] << 8 | packet[11]) + 0x0100) % 0xFFFF
        packet[10], packet[11] = checksum >> 8, checksum & 0xFF
    else:
        packet[7] -= 1


def tos_of(packet: Buffer) -> int:
    """The TOS byte or traffic class of a packet that `length_of` accepted."""
    if packet[0] < 0x50:
        return packet[1]
    return (packet[0] & 0x0F) << 4 | packet[1] >> 4


def decapsulate(packet: memoryview, outer: int) -> None:
    """Update a packet's ECN field, in place, from the outer header's (RFC 6040, section 4.2).

    A packet that cannot be marked stays as it is, whatever the outer header says. The RFC would drop it. WireGuard's
    kernel module delivers it, since some networks mark everything, and so does this. IPv4's header checksum is adjusted
    to match (RFC 1624); one that was wrong stays wrong. Untrusted bytes, at least 20 of them; raises nothing.
    """
    is_ipv4 = packet[0] < 0x50
    inner = packet[1] & ECN if is_ipv4 else packet[1] >> 4 & ECN
    if inner == NOT_ECT:
        return
    if outer == CE or (outer == ECT_1 and inner == ECT_0):
        if is_ipv4:
            packet[1] += outer - inner
            checksum = ((packet[10] << 8 | packet[11]) + inner - outer) % 0xFFFF
            packet[10], packet[11] = checksum >> 8, checksum & 0xFF
        else:
            packet[1] += (outer - inner) << 4


def is_one_host(address: bytes) -> bool:
    """Whether an address may be one remote host's: not unspecified, loopback, multicast or broadcast.

    A subnet's broadcast address cannot be told from a host's address.
    """
    if len(address) == 4:
        return 0 < address[0] < 224 and address[0] != 127
    return address[0] != 0xFF and (address[15] > 1 or address[:15] != _ZEROS)


def is_multicast(address: bytes) -> bool:
    """Whether an address is that of a group (RFC 5771, RFC 4291 section 2.7), or all of a network's hosts."""
    if len(address) == 4:
        return address[0] & 0xF0 == 0xE0 or address == b"\xff\xff\xff\xff"
    return address[0] == 0xFF


def is_link_local(address: bytes) -> bool:
    """Whether an address is link-local, so that no router forwards it (RFC 3927 section 7, RFC 4291 section 2.5.6)."""
    if len(address) == 4:
        return address[:2] == b"\xa9\xfe"
    return address[0] == 0xFE and address[1] & 0xC0 == 0x80
