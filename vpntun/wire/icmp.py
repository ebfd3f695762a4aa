"""ICMP errors sent to the source of a packet that cannot be forwarded (RFC 792, RFC 4443).

An error is sent only where exactly one host can be its addressee. No error is sent about
(RFC 1122 section 3.2.2, RFC 4443 section 2.4)

    an ICMP message, unless its type is known not to be an error
    a packet sent to several hosts, or from an address that is not a single host's
    a fragment other than the first, or a packet in which that cannot be determined

An error quotes the packet from its first byte on, up to a total size of 576 bytes, or 1280 with IPv6: sizes that every
path takes (RFC 1812 section 4.3.2.3, RFC 4443 section 3).

Interface:
    may_be_told_of(packet) -> bool
    error_about(packet, error, source, mtu) -> bytes    error: UNREACHABLE, TIME_EXCEEDED or TOO_BIG
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vpntun.wire.checksum import finish_transport, pseudo_sum, set_ipv4_header
from vpntun.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE, destination_of, is_one_host, source_of
from vpntun.wire.message import Buffer


class IcmpError(NamedTuple):
    """An error's type and code, in ICMP for IPv4 and in ICMPv6."""

    four: tuple[int, int]
    six: tuple[int, int]


UNREACHABLE = IcmpError((3, 1), (1, 3))  # "host", as WireGuard sends it (drivers/net/wireguard/device.c, wg_xmit)
TIME_EXCEEDED = IcmpError((11, 0), (3, 0))
TOO_BIG = IcmpError((3, 4), (2, 0))

ICMP, ICMPV6 = 1, 58
HOP_LIMIT = 64
LARGEST_V4, LARGEST_V6 = 576, 1280

_NO_ERRORS = frozenset({0, 8, 9, 10, 13, 14, 15, 16, 17, 18})  # echo and the other requests and replies
_LOWEST_INFORMATIONAL, _REDIRECT = 128, 137
_FRAGMENT = 44
_EXTENSIONS = frozenset({0, 43, 60})  # hop by hop, routing, destination
_MOST_EXTENSIONS = 4
_INTERNETWORK_CONTROL = 0xC0  # RFC 1812 section 4.3.2.5
_DF = 0x4000

_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ICMP = struct.Struct("!BBHI")  # type, code, checksum, and the MTU or zeros
_CHECKSUM = 2


def may_be_told_of(packet: Buffer) -> bool:
    """Whether an error may be sent about a packet, which has exactly the length from `length_of`. Untrusted bytes."""
    if not is_one_host(source_of(packet)) or not is_one_host(destination_of(packet)):
        return False
    return _is_first_and_no_error_v4(packet) if packet[0] < 0x50 else _is_first_and_no_error_v6(packet)


def error_about(packet: Buffer, error: IcmpError, source: bytes, mtu: int = 0) -> bytes:
    """Return the ICMP packet that reports `error` to the packet's sender.

    `source` is the address it is sent from, of the packet's IP version. `mtu` is the next hop's MTU in bytes, for
    TOO_BIG.
    """
    if packet[0] < 0x50:
        quote = packet[: LARGEST_V4 - IPV4_HEADER_SIZE - _ICMP.size]
        message = bytearray(IPV4_HEADER_SIZE + _ICMP.size) + quote
        ip = (0x45, _INTERNETWORK_CONTROL, len(message), 0, _DF, HOP_LIMIT, ICMP, 0, source, source_of(packet))
        _IPV4.pack_into(message, 0, *ip)
        set_ipv4_header(message)
        _ICMP.pack_into(message, IPV4_HEADER_SIZE, *error.four, 0, mtu)
        finish_transport(message, IPV4_HEADER_SIZE, _CHECKSUM)
    else:
        quote = packet[: LARGEST_V6 - IPV6_HEADER_SIZE - _ICMP.size]
        message = bytearray(IPV6_HEADER_SIZE + _ICMP.size) + quote
        length = len(message) - IPV6_HEADER_SIZE
        _IPV6.pack_into(message, 0, 6 << 28, length, ICMPV6, HOP_LIMIT, source, source_of(packet))
        _ICMP.pack_into(message, IPV6_HEADER_SIZE, *error.six, pseudo_sum(message, ICMPV6, length), mtu)
        finish_transport(message, IPV6_HEADER_SIZE, _CHECKSUM)
    return bytes(message)


def _is_first_and_no_error_v4(packet: Buffer) -> bool:
    if packet[6] & 0x1F or packet[7]:
        return False
    start = (packet[0] & 15) << 2
    return packet[9] != ICMP or (start < len(packet) and packet[start] in _NO_ERRORS)


def _is_first_and_no_error_v6(packet: Buffer) -> bool:
    protocol, at = packet[6], IPV6_HEADER_SIZE
    for _ in range(_MOST_EXTENSIONS):
        if protocol != _FRAGMENT and protocol not in _EXTENSIONS:
            break
        if at + 8 > len(packet):
            return False
        if protocol == _FRAGMENT:
            if packet[at + 2] or packet[at + 3] & 0xF8:
                return False
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + 8 + (packet[at + 1] << 3)
    if protocol == _FRAGMENT or protocol in _EXTENSIONS or at > len(packet):
        return False
    return protocol != ICMPV6 or (at < len(packet) and packet[at] >= _LOWEST_INFORMATIONAL and packet[at] != _REDIRECT)
