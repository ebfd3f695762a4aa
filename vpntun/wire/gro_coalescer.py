"""Receive coalescing (GRO): joins consecutive segments of one flow into a superpacket for the device.

A WireGuard peer sends one segment per message. Written to the device one by one, each costs a system call and a walk
through the kernel; joined, up to 64 kB cost only one. A superpacket is made only if cutting it gives back exactly the
packets it was made of. The conditions are those of the kernel's GRO (net/ipv4/tcp_offload.c):

    - consecutive packets of one flow with nothing in between, so the order of packets never changes;
    - equal headers except for lengths, checksums, IPv4 identification, TCP sequence number, FIN and PSH;
    - all checksums verified, since the kernel will trust the superpacket's; or all of them unfinished;
    - IPv4 identification counts up, or DF makes it meaningless (RFC 6864 section 4.1);
    - payloads of one size, only the last may be shorter; FIN or PSH ends the superpacket; TCP segments of at least 48
      bytes, at most 64 UDP datagrams;
    - no IP options or extension headers, no fragments; no CWR, SYN, URG or RST; no UDP without a checksum.

Frames of a TAP device must agree in all bytes before the IP header, too, and end where the IP packet ends. A frame with
padding passes unchanged.

Flow: call `add()` with every packet in order of arrival. Each packet is copied behind the room for a virtio header and
waits for its continuation. A packet that cannot be continued, or is not, is passed to `write` with its header. Call
`flush()` at the end of a batch.

Interface:
    GroCoalescer(write, udp)   write(memoryview): virtio_net_hdr and packet, valid during the call
                               udp: whether the device accepted USO
    .add(packet, length, finished=, lead=)   an accepted packet, whether its checksum is finished, and the number of
                                             bytes before its IP header
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
from vpntun.wire.transport_header import TCP_CHECKSUM, TCP_HEADER_SIZE, UDP_HEADER_SIZE
from vpntun.wire.vnet import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    MOST_TCP_SEGMENTS,
    MOST_UDP_SEGMENTS,
    NEEDS_CSUM,
    SEGMENT_SIZE,
    SMALLEST_TCP_SEGMENT,
    UNFINISHED,
    VNET_HEADER,
    VNET_HEADER_SIZE,
    ends_with_ip,
    header_for,
)

_LARGEST_PACKET = 65535
_FIN_PSH = 0x09
_ACK = 0x10
_ECE = 0x40
_DF = 0x40

_WORD = struct.Struct("!H")
_SEQUENCE = struct.Struct("!I")


class GroCoalescer:
    """Joiner of runs of segments for a device with offloads, with one buffer of its own."""

    def __init__(self, write: Callable[[memoryview], object], udp: bool) -> None:
        self._write = write
        self._udp = udp
        self._buffer = memoryview(bytearray(VNET_HEADER_SIZE + _LARGEST_PACKET))
        self._pending = self._buffer[VNET_HEADER_SIZE:]
        self.length = 0
        """Size in bytes of the pending packet; 0 if none is pending."""
        self._segments = 0
        self._size = 0  # payload of its first segment
        self._protocol = self._start = self._end = 0
        self._lead = self._lead_sum = 0  # the number of bytes before the IP header, and their checksum
        self._ipv4 = False
        self._open = False  # whether it may be continued
        self._finished = True
        self._most = 0  # how many segments may be joined
        self._mask = self._next = self._step = self._pseudo = 0

    def add(self, packet: memoryview, length: int, *, finished: bool = True, lead: int = 0) -> None:
        """Take the next packet, of the `length` that `length_of` returned; or a whole frame of this length.

        `lead`: bytes of the frame before its IP header. `finished` tells whether its checksum is finished. If so, any
        packet is taken, though not every packet can be joined. If not, raises BadPacket as `header_for` does for a
        packet that has no checksum to finish.
        """
        if not self.extend(packet, length, finished=finished):
            self.flush()
            self._begin(packet, length, finished, lead)

    def extend(self, packet: memoryview, length: int, *, finished: bool) -> bool:
        """Take the packet if it continues the pending one; return whether it did.

        `packet` holds `length` untrusted bytes that need no earlier check: a packet that is taken has the version,
        addresses, protocol and lengths that the pending packet's successor must have.
        """
        end = self._end
        size = length - end
        if not self._open or finished is not self._finished or not 0 < size <= self._size:
            return False
        if self._segments == 1 and not self._learn_flow():
            self._open = False
            return False
        if self._segments >= self._most or self.length + size > _LARGEST_PACKET:
            return False
        headers = int.from_bytes(packet[:end], "big")
        expected = self._next if size == self._size else self._shorter_by(self._size - size)
        if headers & self._mask != expected or not self._is_intact(packet, length, headers):
            return False
        pending = self.length
        self._pending[pending : pending + size] = packet[end:length]
        self.length = pending + size
        self._segments += 1
        self._next += self._step
        if size != self._size:
            self._open = False
        if self._protocol == TCP and (last := packet[self._start + 13] & _FIN_PSH):
            self._pending[self._start + 13] |= last
            self._open = False
        return True

    def flush(self) -> None:
        """Write the pending packet, if there is one."""
        length = self.length
        if not length:
            return
        if self._segments > 1:
            self._finish_superpacket()
        self.discard()
        self._write(self._buffer[: VNET_HEADER_SIZE + length])

    def discard(self) -> None:
        """Drop the pending packet."""
        self.length = 0
        self._open = False

    def _begin(self, packet: memoryview, length: int, finished: bool, lead: int) -> None:
        header_for(packet, length, 0 if finished else UNFINISHED, self._buffer, lead)
        self._finished = finished
        self._pending[:length] = packet[:length]
        self.length = length
        self._segments = 1
        self._lead = lead
        if lead:
            self._open = ends_with_ip(packet[:length], lead) and self._find_payload(packet[lead:], length - lead)
        else:
            self._open = self._find_payload(packet, length)

    def _find_payload(self, packet: Buffer, length: int) -> bool:
        """Return whether another packet may be joined to this one; if so, note its layout, payload size and limit.

        `packet` begins with the IP header; the offsets noted count from the first byte before it.
        """
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
            self._most = MOST_TCP_SEGMENTS
        elif protocol == UDP and self._udp and length > start + UDP_HEADER_SIZE:
            header = UDP_HEADER_SIZE
            size = length - start - header
            has_checksum = packet[start + 6] or packet[start + 7]
            self._most = MOST_UDP_SEGMENTS
            if not has_checksum or packet[start + 4] << 8 | packet[start + 5] != length - start:
                return False
        else:
            return False
        if size > SEGMENT_SIZE:  # no segment field could express it, where the superpacket is forwarded
            return False
        lead = self._lead
        self._protocol, self._ipv4, self._size = protocol, start == 20, size
        self._start, self._end = lead + start, lead + start + header
        return True

    def _learn_flow(self) -> bool:
        """Work out what the pending packet's successor must look like; return whether there can be one.

        `_next` is the successor's headers as one number, under `_mask`; `_step` is the amount by which that number
        grows from packet to packet. A sequence number or identification that would wrap around begins a new
        superpacket.
        """
        packet, start, end, lead = self._pending, self._start, self._end, self._lead
        headers = int.from_bytes(packet[:end], "big")
        self._lead_sum = ones_sum(packet[:lead]) if lead else 0
        self._pseudo = pseudo_sum(packet[lead:] if lead else packet, self._protocol, 0)
        if not self._is_intact(packet, self.length, headers):
            return False
        self._step = 0
        if self._protocol == TCP:
            self._step = self._size << (end - start - 8) * 8
            sequence = _SEQUENCE.unpack_from(packet, start + 4)[0]
            self._most = min(self._most, 1 + (0xFFFFFFFF - sequence) // self._size)
        ignores_identification = self._ipv4 and bool(packet[lead + 6] & _DF)
        if self._ipv4 and not ignores_identification:
            self._step += 1 << (end - lead - 6) * 8
            self._most = min(self._most, 0x10000 - _WORD.unpack_from(packet, lead + 4)[0])
        self._mask = _mask_for(self._protocol, lead, start, end, ignores_identification)
        self._next = (headers & self._mask) + self._step
        return True

    def _shorter_by(self, missing: int) -> int:
        """Return `_next` for a packet whose payload is `missing` bytes shorter than the others'."""
        lengths = missing << (self._end - self._lead - (4 if self._ipv4 else 6)) * 8
        if self._protocol == UDP:
            lengths += missing << (self._end - self._start - 6) * 8
        return self._next - lengths

    def _is_intact(self, packet: memoryview, length: int, headers: int) -> bool:
        """Return whether the checksums of a packet of this flow are right; `headers` is its headers as one number.

        The kernel finishes an unfinished checksum, so that one cannot be wrong. The bytes before an IPv4 header are an
        even number, and known, so they need not be cut off to sum the header.
        """
        start = self._start
        if self._ipv4 and (headers >> ((self._end - start) << 3)) % 0xFFFF != self._lead_sum:
            return False
        if not self._finished:
            return True
        if self._protocol == UDP and not (packet[start + 6] or packet[start + 7]):
            return False
        return (ones_sum(packet[start:length]) + self._pseudo + length - start) % 0xFFFF == 0

    def _finish_superpacket(self) -> None:
        """Write the superpacket's lengths, header checksum, unfinished transport checksum and virtio header."""
        packet, length, start, lead = self._pending, self.length, self._start, self._lead
        ip = packet[lead:]
        if self._ipv4:
            _WORD.pack_into(ip, 2, length - lead)
            set_ipv4_header(ip)
            gso_type = GSO_TCPV4
        else:
            _WORD.pack_into(ip, 4, length - start)
            gso_type = GSO_TCPV6
        offset = TCP_CHECKSUM
        if self._protocol == UDP:
            _WORD.pack_into(packet, start + 4, length - start)
            offset = UDP_CHECKSUM
            gso_type = GSO_UDP
        _WORD.pack_into(packet, start + offset, pseudo_sum(ip, self._protocol, length - start) or 0xFFFF)
        VNET_HEADER.pack_into(self._buffer, 0, NEEDS_CSUM, gso_type, self._end, self._size, start, offset)


@cache
def _mask_for(protocol: int, lead: int, start: int, end: int, ignores_identification: bool) -> int:
    """Return a mask of ones, with zeros where the headers of consecutive segments may differ unpredictably."""
    mask = bytearray(b"\xff" * end)
    if start - lead == 20:
        mask[lead + 10 : lead + 12] = bytes(2)  # header checksum
        if ignores_identification:
            mask[lead + 4 : lead + 6] = bytes(2)
    if protocol == TCP:
        mask[start + 13] = ~_FIN_PSH & 0xFF
        mask[start + 16 : start + 18] = bytes(2)  # checksum
    else:
        mask[start + 6 : start + 8] = bytes(2)
    return int.from_bytes(mask, "big")
