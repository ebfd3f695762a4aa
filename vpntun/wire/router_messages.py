"""Router messages: neighbor discovery and redirects, by which a host learns routes and neighbors on its own link.

    ICMPv6 133-137   router solicitation and advertisement, neighbor solicitation and advertisement, redirect (RFC 4861)
    ICMP 5           redirect (RFC 792)

A tunnel of IP packets has no use for them: its device has no link-layer addresses, and its routes are configured. But a
kernel that receives one from the device may obey it: one advertisement is enough to move a host's default route into
the tunnel. Extension headers in front of ICMPv6 hide nothing, nor does fragmentation: the first fragment must contain
all headers (RFC 7112 section 5), and the others are useless without it.

    if packet[9 if packet[0] < 0x50 else 6] in MAY_BE_ROUTER_MESSAGE:    (one cheap test for each packet)
        refuse_router_message(packet, length)
"""

from __future__ import annotations

from vpntun.errors import BadPacket
from vpntun.wire.icmp import ICMP, ICMPV6
from vpntun.wire.ip import IPV6_HEADER_SIZE
from vpntun.wire.message import Buffer

_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_EXTENSIONS = frozenset({_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION})
_MOST_EXTENSIONS = 8
_EXTENSION_SIZE = 8
"""The size of a fragment header, and of any other extension header without its variable part."""

_REDIRECT_V4 = 5
_ADVERTISEMENT, _REDIRECT = 134, 137
_NEIGHBOR_DISCOVERY = range(133, 138)

MAY_BE_ROUTER_MESSAGE = _EXTENSIONS | {ICMP, ICMPV6}
"""Values of IPv4's protocol and IPv6's next header with which a packet must be given to `refuse_router_message`."""


def refuse_router_message(packet: Buffer, length: int) -> None:
    """Raise BadPacket if a packet is a router message, or an IPv6 packet that may hide one. Untrusted bytes.

    `length` is the result of `length_of`. The reasons are "router message" for an advertisement or a redirect;
    "neighbor discovery" for the others, which kernels send by themselves; "bad extension header" where the headers do
    not end in this packet.
    """
    if packet[0] < 0x50:
        _refuse_v4(packet, length)
    else:
        _refuse_v6(packet, length)


def _refuse_v4(packet: Buffer, length: int) -> None:
    start = (packet[0] & 15) << 2
    is_later_fragment = packet[6] & 0x1F or packet[7]
    if packet[9] == ICMP and not is_later_fragment and start < length and packet[start] == _REDIRECT_V4:
        raise BadPacket("router message")


def _refuse_v6(packet: Buffer, length: int) -> None:
    protocol, at = packet[6], IPV6_HEADER_SIZE
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in _EXTENSIONS:
            break
        if at + _EXTENSION_SIZE > length:
            raise BadPacket("bad extension header")
        variable = packet[at + 1] << 3
        if protocol == _FRAGMENT:
            if packet[at + 2] or packet[at + 3] & 0xF8:  # a later fragment
                return
            variable = 0
        protocol, at = packet[at], at + _EXTENSION_SIZE + variable
    if protocol in _EXTENSIONS or at > length or (protocol == ICMPV6 and at == length):
        raise BadPacket("bad extension header")
    if protocol == ICMPV6 and packet[at] in _NEIGHBOR_DISCOVERY:
        steers = packet[at] in (_ADVERTISEMENT, _REDIRECT)
        raise BadPacket("router message" if steers else "neighbor discovery")
