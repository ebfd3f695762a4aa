"""Joining segments again. Law: whoever cuts the superpacket gets back the packets it was made of, or it isn't made.

A WireGuard peer sends one segment a message. Written to the device one by one they cost a system call and a walk
through the kernel each; joined, one for up to 64 kB. This is the kernel's GRO, and its conditions
(net/ipv4/tcp_offload.c):

    - consecutive packets of one flow, nothing in between, so the order of packets never changes;
    - equal headers but for lengths, checksums, IPv4 identification, TCP sequence number, FIN and PSH;
    - checksums verified, since the kernel will take the superpacket's as good;
    - IPv4 identification counts up, or DF makes it meaningless (RFC 6864 section 4.1);
    - one size, only the last shorter; FIN or PSH ends it; TCP segments of 48 bytes at least, at most 64 UDP datagrams;
    - no IP options or extension headers, no fragments; no CWR, SYN, URG or RST; no UDP without a checksum.

Flow: `add()` every packet in the order of arrival; it is copied behind the room for a virtio header and waits for its
continuation. What can't be continued, or isn't, goes to `write` with its header. `flush()` at the end of a batch.

Interface:
    Joiner(write, udp)     write(memoryview): virtio_net_hdr and packet, valid during the call; udp: the device took USO
    .add(packet, length)   an accepted packet
    .flush()
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

from vpntun.wire.checksum import (
    TCP,
    UDP,
    UDP_CHECKSUM,
    ones_sum,
    pseudo_sum,
    set_ipv4_header,
)
from vpntun.wire.message import Buffer
from vpntun.wire.transport import TCP_CHECKSUM, TCP_HEADER_SIZE, UDP_HEADER_SIZE
from vpntun.wire.vnet import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    MOST_UDP_SEGMENTS,
    NEEDS_CSUM,
    NO_OFFLOAD,
    SMALLEST_TCP_SEGMENT,
    VNET_HEADER,
    VNET_HEADER_SIZE,
)

_LARGEST_PACKET = 65535
_FIN_PSH = 0x09
_ACK = 0x10
_ECE = 0x40

_WORD = struct.Struct("!H")
_SEQUENCE = struct.Struct("!I")


class Joiner:
    """Joins runs of segments for a device with offloads, in one buffer of its own."""

    def __init__(self, write: Callable[[memoryview], object], udp: bool) -> None:
        self._write = write
        self._udp = udp
        self._buffer = memoryview(bytearray(VNET_HEADER_SIZE + _LARGEST_PACKET))
        self._pending = self._buffer[VNET_HEADER_SIZE:]
        self.length = 0
        """Bytes of the packet that is pending; 0: none is."""
        self._segments = 0
        self._size = 0  # payload of its first segment
        self._protocol = self._start = self._end = 0
        self._open = False  # it may be continued
        self._next_sequence = 0
        self._key = self._mask = self._pseudo = 0

    def add(self, packet: memoryview, length: int) -> None:
        """Take the next packet, as `length_of` accepted it; untrusted, but whatever it is, it only is not joined."""
        if self._open and self._continues(packet, length):
            self._append(packet, length)
        else:
            self.flush()
            self._begin(packet, length)

    def flush(self) -> None:
        """Write what is pending, if anything is."""
        length = self.length
        if not length:
            return
        if self._segments == 1:
            self._buffer[:VNET_HEADER_SIZE] = NO_OFFLOAD
        else:
            self._finish_superpacket()
        self.discard()
        self._write(self._buffer[: VNET_HEADER_SIZE + length])

    def discard(self) -> None:
        """Drop what is pending."""
        self.length = 0
        self._open = False

    def _begin(self, packet: memoryview, length: int) -> None:
        self._pending[:length] = packet[:length]
        self.length = length
        self._segments = 1
        self._open = self._find_payload(packet, length)

    def _find_payload(self, packet: Buffer, length: int) -> bool:
        """Whether another may follow this packet; if so, where its headers lie, its size and what must come next."""
        if packet[0] == 0x45:
            protocol, start = packet[9], 20
            if packet[6] & 0x3F or packet[7]:
                return False
        elif packet[0] >> 4 == 6:
            protocol, start = packet[6], 40
        else:
            return False
        if protocol == TCP and length >= start + TCP_HEADER_SIZE:
            header = packet[start + 12] >> 4 << 2
            flags = packet[start + 13]
            size = length - start - header
            if header < TCP_HEADER_SIZE or size < SMALLEST_TCP_SEGMENT or flags & ~_ECE != _ACK:
                return False
            self._next_sequence = _SEQUENCE.unpack_from(packet, start + 4)[0] + size & 0xFFFFFFFF
        elif protocol == UDP and self._udp and length > start + UDP_HEADER_SIZE:
            header = UDP_HEADER_SIZE
            size = length - start - header
            has_checksum = packet[start + 6] or packet[start + 7]
            if not has_checksum or packet[start + 4] << 8 | packet[start + 5] != length - start:
                return False
        else:
            return False
        self._protocol, self._start, self._end, self._size = protocol, start, start + header, size
        return True

    def _continues(self, packet: memoryview, length: int) -> bool:
        """Whether this packet is the pending one's next; the cheapest refusals come first."""
        end, start = self._end, self._start
        size = length - end
        if not 0 < size <= self._size or self.length + size > _LARGEST_PACKET:
            return False
        if self._protocol == TCP:
            if _SEQUENCE.unpack_from(packet, start + 4)[0] != self._next_sequence:
                return False
        elif self._segments == MOST_UDP_SEGMENTS or packet[start + 4] << 8 | packet[start + 5] != length - start:
            return False
        if self._segments == 1:
            self._learn_flow()
            if not self._is_intact(self._pending, self.length, int.from_bytes(self._pending[:end], "big")):
                self._open = False
                return False
        headers = int.from_bytes(packet[:end], "big")
        if headers & self._mask != self._key:
            return False
        if start == 20 and not packet[6] & 0x40:
            first = _WORD.unpack_from(self._pending, 4)[0]
            if _WORD.unpack_from(packet, 4)[0] != (first + self._segments) & 0xFFFF:
                return False
        return self._is_intact(packet, length, headers)

    def _learn_flow(self) -> None:
        """What each continuation of the pending packet is held against."""
        self._mask = _mask_for(self._protocol, self._start, self._end)
        self._key = int.from_bytes(self._pending[: self._end], "big") & self._mask
        self._pseudo = pseudo_sum(self._pending, self._protocol, 0)

    def _is_intact(self, packet: memoryview, length: int, headers: int) -> bool:
        """Whether the checksums of a packet of this flow are right; `headers` is what its headers spell."""
        start = self._start
        if start == 20 and (headers >> ((self._end - 20) << 3)) % 0xFFFF:
            return False
        if self._protocol == UDP and not (packet[start + 6] or packet[start + 7]):
            return False
        return (ones_sum(packet[start:length]) + self._pseudo + length - start) % 0xFFFF == 0

    def _append(self, packet: memoryview, length: int) -> None:
        size = length - self._end
        self._pending[self.length : self.length + size] = packet[self._end : length]
        self.length += size
        self._segments += 1
        self._open = size == self._size
        if self._protocol == TCP:
            self._next_sequence = self._next_sequence + size & 0xFFFFFFFF
            last = packet[self._start + 13] & _FIN_PSH
            if last:
                self._pending[self._start + 13] |= last
                self._open = False

    def _finish_superpacket(self) -> None:
        """Lengths, header checksum, unfinished transport checksum and virtio header."""
        packet, length, start = self._pending, self.length, self._start
        if start == 20:
            _WORD.pack_into(packet, 2, length)
            set_ipv4_header(packet)
            gso_type = GSO_TCPV4
        else:
            _WORD.pack_into(packet, 4, length - start)
            gso_type = GSO_TCPV6
        offset = TCP_CHECKSUM
        if self._protocol == UDP:
            _WORD.pack_into(packet, start + 4, length - start)
            offset = UDP_CHECKSUM
            gso_type = GSO_UDP
        _WORD.pack_into(packet, start + offset, pseudo_sum(packet, self._protocol, length - start) or 0xFFFF)
        VNET_HEADER.pack_into(self._buffer, 0, NEEDS_CSUM, gso_type, self._end, self._size, start, offset)


@cache
def _mask_for(protocol: int, start: int, end: int) -> int:
    """All ones but where the headers of one flow's consecutive segments may differ. There are 24 of these at most."""
    mask = bytearray(b"\xff" * end)
    if start == 20:
        mask[2:6] = bytes(4)  # total length, identification
        mask[10:12] = bytes(2)  # header checksum
    else:
        mask[4:6] = bytes(2)  # payload length
    mask[start + 4 : start + 8] = bytes(4)  # TCP: sequence number; UDP: length and checksum
    if protocol == TCP:
        mask[start + 13] = ~_FIN_PSH & 0xFF
        mask[start + 16 : start + 18] = bytes(2)  # checksum
    return int.from_bytes(mask, "big")
