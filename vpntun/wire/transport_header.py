"""The TCP or UDP header of an inner packet: where it and the payload begin, and its ports.

Offloads need these two offsets. A peer also describes the shape of its superpackets, but `shape_of` derives it from the
packet alone, and refuses every packet that is not certain to be one whole TCP or UDP segment. It accepts no fragments
(their checksum covers more than is there), at most 4 extension headers, at most 256 bytes of headers in all (each
segment repeats them), and only a UDP length that agrees with IP's.

Interface:
    shape_of(packet, length) -> (protocol, start, end)   start of the transport header, start of the payload
    ports_of(packet) -> (ports, fragment)                for a whole packet and for the first fragment of one
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP, UDP
from vpntun.wire.message import Buffer

TCP_FLAGS, TCP_CHECKSUM = 13, 16
SYN, CWR = 0x02, 0x80
TCP_HEADER_SIZE, UDP_HEADER_SIZE = 20, 8

MOST_EXTENSIONS = 4
MOST_HEADERS = 256

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION})
_FRAGMENT_SIZE = 8

_read_ports = struct.Struct("!HH").unpack_from

Ports = tuple[int, int, int]
"""Protocol, source port, destination port."""


def shape_of(packet: Buffer, length: int) -> tuple[int, int, int]:
    """Return protocol (6 or 17), offset of its header and offset of its payload; `length_of` has returned `length`.

    Untrusted bytes. Raises BadPacket: "fragment", "bad extension header", "not TCP or UDP", "bad TCP header" or
    "bad UDP header". IPv4: RFC 791; IPv6: RFC 8200 section 4; TCP: RFC 9293; UDP: RFC 768.
    """
    if packet[0] < 0x50:
        if packet[6] & 0x3F or packet[7]:
            raise BadPacket("fragment")
        protocol = packet[9]
        start = (packet[0] & 15) << 2
    else:
        protocol = packet[6]
        start = 40
        if protocol != TCP and protocol != UDP:
            protocol, start = _behind_extensions(packet, length)
    if protocol == TCP:
        if start + TCP_HEADER_SIZE > length:
            raise BadPacket("bad TCP header")
        header = packet[start + 12] >> 4 << 2
        end = start + header
        if header < TCP_HEADER_SIZE or end > length or end > MOST_HEADERS:
            raise BadPacket("bad TCP header")
    elif protocol == UDP:
        end = start + UDP_HEADER_SIZE
        if end > length or end > MOST_HEADERS or packet[start + 4] << 8 | packet[start + 5] != length - start:
            raise BadPacket("bad UDP header")
    else:
        raise BadPacket("not TCP or UDP")
    return protocol, start, end


def ports_of(packet: Buffer) -> tuple[Ports | None, bytes]:
    """Return the ports of a packet that `ip.length_of` accepted, and the identification that all its fragments share.

    Ports are None for a later fragment, and for other protocols. The identification is empty for a whole packet. With
    IPv6 the only extension header that is skipped is a fragment header.
    """
    if packet[0] < 0x50:
        protocol, start = packet[9], (packet[0] & 15) << 2
        fragment = bytes(packet[4:6]) if packet[6] & 0x3F or packet[7] else b""
        is_later = packet[6] & 0x1F or packet[7]
    elif packet[6] == _FRAGMENT and len(packet) >= 40 + _FRAGMENT_SIZE:
        protocol, start = packet[40], 40 + _FRAGMENT_SIZE
        fragment = bytes(packet[44:48])
        is_later = packet[42] or packet[43] & 0xF8
    else:
        protocol, start, fragment, is_later = packet[6], 40, b"", 0
    if is_later or protocol not in (TCP, UDP) or start + 4 > len(packet):
        return None, fragment
    source, destination = _read_ports(packet, start)
    return (protocol, source, destination), fragment


def _behind_extensions(packet: Buffer, length: int) -> tuple[int, int]:
    """Protocol and offset of the header behind the IPv6 extension headers (RFC 8200 section 4.1)."""
    protocol, start = packet[6], 40
    for _ in range(MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            break
        if start + 8 > length:
            raise BadPacket("bad extension header")
        protocol, start = packet[start], start + 8 + (packet[start + 1] << 3)
    if protocol == _FRAGMENT:
        raise BadPacket("fragment")
    if protocol in _EXTENSIONS or start > length:
        raise BadPacket("bad extension header")
    return protocol, start
