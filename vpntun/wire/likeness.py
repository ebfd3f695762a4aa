"""Likeness of TCP packets: what was found out about one packet holds for others that begin like it.

Two packets are alike if their first bytes agree in the IP version, the addresses, and all that tells where the TCP
header and the payload begin: header lengths, no fragment, protocol TCP, CWR. If each has the length that its IP header
says, and a whole TCP header, then `source_of`, `destination_of` and `shape_of` return the same for both. The packets of
one direction between two hosts are alike, whatever their ports. Frames of a TAP device must agree in all bytes before
the IP header as well: addresses, VLAN tags and EtherType. No packet is like a SYN, whose options may have to be changed
(wire/ethernet/mss.py).

`LikenessCache` keeps a conclusion about packets of a kind, for the last likeness in which one of this kind came. It
must be emptied whenever the conclusion may change.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from vpntun.wire.checksum import TCP
from vpntun.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE
from vpntun.wire.message import Buffer
from vpntun.wire.transport_header import CWR, SYN, TCP_FLAGS
from vpntun.wire.vnet import MOST_TCP_SEGMENTS

MOST_KINDS = 64
SMALLEST_SEGMENT = 256
"""Bytes. A superpacket of smaller segments might have too many of them (`MOST_TCP_SEGMENTS`)."""
LARGEST_PACKET = 65535
assert SMALLEST_SEGMENT * MOST_TCP_SEGMENTS > LARGEST_PACKET

_COMPARED_OF_TCP = 14
"""Bytes of the TCP header that are compared, up to the flags."""

Kind = TypeVar("Kind", bound=Hashable)
Conclusion = TypeVar("Conclusion")


class Likeness(NamedTuple):
    """What a packet must have in common with another, and the shortest and the longest that it may be, in bytes."""

    common: int
    mask: int
    shift: int
    size: int
    shortest: int
    longest: int

    def covers(self, packet: memoryview) -> bool:
        """Return whether the packet is alike, and exactly as long as its own IP header says. Untrusted bytes."""
        length = len(packet)
        beginning = int.from_bytes(packet[: self.size], "big") & self.mask
        return beginning == self.common + (length << self.shift) and self.shortest <= length <= self.longest


class LikenessCache(Generic[Kind, Conclusion]):
    """Conclusions about packets, by their kind. At most 64 kinds are kept."""

    def __init__(self) -> None:
        self._known: dict[Kind, tuple[Likeness, Conclusion]] = {}

    def find(self, kind: Kind, packet: memoryview) -> Conclusion | None:
        """Return the conclusion about packets of this kind, if it holds for this one. Untrusted bytes."""
        known = self._known.get(kind)
        return known[1] if known is not None and known[0].covers(packet) else None

    def keep(self, kind: Kind, likeness: Likeness | None, conclusion: Conclusion) -> None:
        """Keep a conclusion, in place of the former one about this kind; None: it holds for one packet alone."""
        if likeness is not None:
            if len(self._known) >= MOST_KINDS:
                self._known.clear()
            self._known[kind] = likeness, conclusion

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()


def likeness_of(packet: Buffer, segment: int = 0, longest: int = LARGEST_PACKET, lead: int = 0) -> Likeness | None:
    """Return the likeness of a packet that `shape_of` accepted, behind `lead` other bytes.

    `longest`: bytes that those like it may have, those before the IP header included. `segment`: bytes of a
    superpacket's segments; those like it are superpackets too. None unless the packet is TCP without extension headers,
    for a SYN, and for small segments.
    """
    before: Buffer = b""
    if lead:
        before, packet = packet[:lead], packet[lead:]
    if packet[0] < 0x50:
        start = (packet[0] & 15) << 2
        mask = bytearray(start + _COMPARED_OF_TCP)
        mask[0] = mask[9] = mask[7] = 0xFF
        mask[6] = 0x3F
        mask[12:IPV4_HEADER_SIZE] = b"\xff" * 8
        protocol, length_at, uncounted = packet[9], 2, 0
    else:
        start = IPV6_HEADER_SIZE
        mask = bytearray(start + _COMPARED_OF_TCP)
        mask[0], mask[6] = 0xF0, 0xFF
        mask[8:IPV6_HEADER_SIZE] = b"\xff" * 32
        protocol, length_at, uncounted = packet[6], 4, IPV6_HEADER_SIZE
    if protocol != TCP or 0 < segment < SMALLEST_SEGMENT or packet[start + TCP_FLAGS] & SYN:
        return None
    mask[start + 12], mask[start + TCP_FLAGS] = 0xF0, CWR | SYN
    size = len(mask)
    shift = (size - length_at - 2) * 8
    common = int.from_bytes(packet[:size], "big") & int.from_bytes(mask, "big")
    mask[length_at : length_at + 2] = b"\xff\xff"
    shortest = start + (packet[start + 12] >> 4 << 2) + (segment + 1 if segment else 0)
    if lead:
        common += int.from_bytes(before, "big") << size * 8
        mask[:0] = b"\xff" * lead
    return Likeness(
        common - (uncounted + lead << shift),
        int.from_bytes(mask, "big"),
        shift,
        lead + size,
        lead + shortest,
        longest,
    )
