"""Where TCP or UDP lies in an inner packet. Law: what is not certain to be one whole TCP or UDP segment is refused.

Offloads need to know where the transport header begins and the payload begins. Whoever is told a superpacket's shape by
a peer finds it here again from the packet alone: no fragments (their checksum covers more than is there), at most 4
extension headers, 256 bytes of headers in all (each segment repeats them), and a UDP length that agrees with IP's.

Interface:
    shape_of(packet, length) -> (protocol, start, end)   start of the transport header, start of the payload
"""

from __future__ import annotations

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP, UDP
from vpntun.wire.message import Buffer

TCP_CHECKSUM = 16
TCP_HEADER_SIZE, UDP_HEADER_SIZE = 20, 8

MOST_EXTENSIONS = 4
MOST_HEADERS = 256

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION})


def shape_of(packet: Buffer, length: int) -> tuple[int, int, int]:
    """Protocol (6 or 17), offset of its header, offset of its payload, of a packet whose `length` was accepted.

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


def _behind_extensions(packet: Buffer, length: int) -> tuple[int, int]:
    """Protocol and offset of what follows the IPv6 extension headers (RFC 8200 section 4.1)."""
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
