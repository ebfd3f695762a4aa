"""Ancillary data of a UDP socket's calls: what the kernel is to do with sent datagrams, and tells of received ones.

    sent        the size of the datagrams that one buffer is cut into (udp(7)), the source address, and the TOS byte
    received    the size of datagrams that the kernel has coalesced, the address that they were sent to, and ECN

The source address and the TOS byte are those of ip(7), and for IPv6 of RFC 3542, sections 6.2 and 6.5.
"""

from __future__ import annotations

import functools
import socket
import struct
import sys

from vpntun.wire.ip import ECN

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50

Ancillary = tuple[tuple[int, int, bytes], ...]
"""Control messages as sendmsg(2) expects them: level, type and data of each."""


@functools.lru_cache(maxsize=64)
def segmented(size: int) -> tuple[int, int, bytes]:
    """Return the message by which the kernel cuts a send into datagrams of this size."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)


@functools.cache
def with_tos(family: int, tos: int) -> tuple[int, int, bytes]:
    """Return the message that sets the TOS byte or traffic class of a send."""
    if family == socket.AF_INET:
        return socket.IPPROTO_IP, socket.IP_TOS, struct.pack("=i", tos)
    return socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("=i", tos)


def sent_from(source: bytes, device: bytes = bytes(4)) -> Ancillary:
    """Return the ancillary data that sets a datagram's source address.

    `device`: the number of the address's device in native byte order, which a link-local address needs.
    """
    if len(source) == 4:
        return ((socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + source + bytes(4)),)
    return ((socket.IPPROTO_IPV6, IPV6_PKTINFO, source + device),)


def source_of(ancillary: Ancillary) -> bytes:
    """Return the source address that `sent_from` has put there, 4 or 16 bytes; empty if there is none."""
    if not ancillary:
        return b""
    level, _, data = ancillary[0]
    return data[4:8] if level == socket.IPPROTO_IP else data[:16]


def received(messages: list[tuple[int, int, bytes]]) -> tuple[int, Ancillary, int]:
    """Return the size of the datagrams of a coalesced read, 0 for a single one, the address to answer from, and ECN."""
    segment = ecn = 0
    local: Ancillary = ()
    for level, kind, data in messages:
        if level == SOL_UDP and kind == UDP_GRO and len(data) >= 4:
            segment = int.from_bytes(data[:4], sys.byteorder)
        elif kind == IP_PKTINFO and level == socket.IPPROTO_IP and len(data) >= 12:
            local = sent_from(data[4:8])
        elif kind == IPV6_PKTINFO and level == socket.IPPROTO_IPV6 and len(data) >= 20:
            link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            local = sent_from(data[:16], data[16:20] if link_local else bytes(4))
        elif kind == socket.IP_TOS and level == socket.IPPROTO_IP and data:
            ecn = data[0] & ECN
        elif kind == socket.IPV6_TCLASS and level == socket.IPPROTO_IPV6 and len(data) >= 4:
            ecn = int.from_bytes(data[:4], sys.byteorder) & ECN
    return segment, local, ecn
