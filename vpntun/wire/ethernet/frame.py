"""Header of an Ethernet frame: the addresses, VLAN tags, and where the IP packet inside begins.

    0   destination, 6 bytes; bit 0 of the first byte: a group of stations, such as all (ff:ff:ff:ff:ff:ff)
    6   source, 6 bytes; never a group
    12  VLAN tags of 4 bytes each: 0x8100 (IEEE 802.1Q) or 0x88a8 (802.1ad), then priority and number
    ..  EtherType; or, up to 1,500, the length of an IEEE 802.3 frame
    ..  payload, and perhaps padding behind it up to 60 bytes in all

A device hands over no preamble and no check sequence.
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.ip import DSCP, tos_of
from vpntun.wire.message import Buffer

HEADER_SIZE = 14
TAG_SIZE = 4
MOST_TAGS = 2
"""VLAN tags that are read. A frame with more of them carries no IP, as far as this program sees."""
LARGEST_HEADER = HEADER_SIZE + MOST_TAGS * TAG_SIZE
ADDRESS_SIZE = 6
TAGS = frozenset({0x8100, 0x88A8})
"""What begins a VLAN tag, in place of an EtherType."""

_IPV4, _IPV6 = 0x0800, 0x86DD
_TYPE = struct.Struct(">H")


def check_source(frame: Buffer) -> None:
    """Raise BadPacket for a frame without a whole header, or whose source is not one station. Untrusted bytes."""
    if len(frame) < HEADER_SIZE:
        raise BadPacket("short frame")
    if frame[6] & 1 or not any(frame[6:12]):
        raise BadPacket("bad source MAC address")


def ip_at(frame: Buffer) -> int:
    """Return the offset of the IP header, behind up to two VLAN tags; 0 if the frame carries no IP packet.

    `frame` has a whole header. The packet's version and length are not checked (wire/ip.py). Untrusted bytes; raises
    nothing.
    """
    at, size = HEADER_SIZE, len(frame)
    while size > at:
        (kind,) = _TYPE.unpack_from(frame, at - 2)
        if kind == _IPV4:
            return at if frame[at] & 0xF0 == 0x40 else 0
        if kind == _IPV6:
            return at if frame[at] & 0xF0 == 0x60 else 0
        if kind not in TAGS or at == LARGEST_HEADER:
            return 0
        at += TAG_SIZE
    return 0


def tos_of_frame(frame: Buffer) -> int:
    """Return the TOS byte or traffic class of the IP packet in a frame with a whole header; 0 if there is none.

    Behind a VLAN tag the ECN bits are left out: the other end marks no packet there, so a network on the way must drop
    what it cannot take. Untrusted bytes; raises nothing.
    """
    at = ip_at(frame)
    if not at or len(frame) < at + 2:
        return 0
    tos = tos_of(frame[at:])
    return tos if at == HEADER_SIZE else tos & DSCP
