"""The Internet checksum, computed with integers modulo 0xffff.

Every sum here is a residue modulo 0xffff, so 0 and 0xffff mean the same. RFC 1071's one's complement sum of 16-bit
words equals the bytes, read as one big-endian number, modulo 0xffff. That is one division of a large integer, which
takes 1 to 2 us for 1.4 kB; a loop over words takes fifty times as long. A length or a sequence number can be added to a
sum later. The checksum field then gets the negated sum. It is never 0xffff (only all-zero data would give that), and in
UDP never 0, which there means "no checksum" (RFC 768).

    finished     the field holds the negated sum over pseudo header and segment
    unfinished   the field holds the sum of the pseudo header alone (virtio's NEEDS_CSUM, Linux's CHECKSUM_PARTIAL)

Interface:
    ones_sum(data) -> int                                        the sum of some bytes
    pseudo_sum(packet, protocol, length) -> int                  the sum of a packet's pseudo header
    set_ipv4_header(packet)
    finish_transport(packet, start, offset)                      unfinished -> finished, in place
"""

from __future__ import annotations

import struct

from vpntun.wire.message import Buffer

TCP, UDP = 6, 17
UDP_CHECKSUM = 6

_WORD = struct.Struct("!H")

# Any power of 2**16 is 1 modulo 0xffff, so the two halves of a number may be added before the division, the slow part.
# For 1.4 kB this saves a quarter of the time. The number is halved twice, at byte 736 and byte 368 from its end: fixed
# places that suit packets of Ethernet's size.
_WORTH_FOLDING = 512
_LOW_736 = (1 << 736 * 8) - 1
_LOW_368 = (1 << 368 * 8) - 1


def ones_sum(data: Buffer) -> int:
    """The sum of `data` as 16-bit big-endian words, modulo 0xffff; an odd last byte is the high half of a word."""
    number = int.from_bytes(data, "big")
    size = len(data)
    if size > _WORTH_FOLDING:
        number = (number >> 5888) + (number & _LOW_736)
        number = (number >> 2944) + (number & _LOW_368)
    total = number % 0xFFFF
    return (total << 8) % 0xFFFF if size & 1 else total


def pseudo_sum(packet: Buffer, protocol: int, length: int) -> int:
    """The sum of the pseudo header of an accepted IP packet (RFC 9293 section 3.1, RFC 8200 section 8.1).

    `length` counts the transport header and its payload. The destination is taken from the IP header; a packet with an
    IPv6 routing header would need another one.
    """
    addresses = packet[12:20] if packet[0] < 0x50 else packet[8:40]
    return (int.from_bytes(addresses, "big") + protocol + length) % 0xFFFF


def set_ipv4_header(packet: bytearray | memoryview) -> None:
    """Write the header checksum of an accepted IPv4 packet (RFC 791)."""
    packet[10:12] = b"\0\0"
    _WORD.pack_into(packet, 10, -ones_sum(packet[: (packet[0] & 15) << 2]) % 0xFFFF)


def finish_transport(packet: bytearray | memoryview, start: int, offset: int) -> None:
    """Finish an unfinished checksum in place: it covers the bytes from `start`, and its field is at `start + offset`.

    `packet` ends where the bytes end that it covers. The caller has checked that the field lies within it.
    """
    total = -ones_sum(packet[start:]) % 0xFFFF
    if not total and offset == UDP_CHECKSUM:
        total = 0xFFFF
    _WORD.pack_into(packet, start + offset, total)
