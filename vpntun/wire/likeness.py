"""Likeness of TCP packets: what was found out about one packet holds for others that begin like it.

Two packets are alike if their first bytes agree in the IP version, the addresses, and all that tells where the TCP
header and the payload begin: header lengths, no fragment, protocol TCP, CWR. Then `length_of`, `source_of`,
`destination_of` and `shape_of` return the same for both, except for the length, which is compared too. The packets of
one direction between two hosts are alike, whatever their ports.

Interface:
    likeness_of(packet, start) -> Likeness | None
    Likeness.covers(packet, length) -> bool
"""

from __future__ import annotations

from vpntun.wire.checksum import TCP
from vpntun.wire.ip import IPV4_HEADER_SIZE, IPV6_HEADER_SIZE
from vpntun.wire.message import Buffer

_COMPARED_OF_TCP = 14
"""Bytes of the TCP header that are compared, up to the flags."""


class Likeness:
    """Bytes that a packet and another one must have in common."""

    __slots__ = ("_common", "_mask", "_shift", "_size")

    def __init__(self, common: int, mask: int, shift: int, size: int) -> None:
        self._common = common
        self._mask = mask
        self._shift = shift
        self._size = size

    def covers(self, packet: memoryview, length: int) -> bool:
        """Return whether the packet is alike, and `length` bytes long by its own IP header. Untrusted bytes."""
        return int.from_bytes(packet[: self._size], "big") & self._mask == self._common + (length << self._shift)


def likeness_of(packet: Buffer) -> Likeness | None:
    """Return the likeness of a packet that `shape_of` accepted; None unless it is TCP without extension headers."""
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
    if protocol != TCP:
        return None
    mask[start + 12 : start + 14] = b"\xf0\x80"
    size = len(mask)
    shift = (size - length_at - 2) * 8
    common = int.from_bytes(packet[:size], "big") & int.from_bytes(mask, "big")
    mask[length_at : length_at + 2] = b"\xff\xff"
    return Likeness(common - (uncounted << shift), int.from_bytes(mask, "big"), shift, size)
