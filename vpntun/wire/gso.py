"""Segmentation of superpackets (GSO): cuts one into the packets that the kernel's own code would make.

A superpacket is one IP packet whose payload is several TCP segments or UDP datagrams of `gso_size` bytes, the last
perhaps shorter, behind one set of headers and an unfinished checksum. It is cut in one of two ways:

    split    into single segments with finished checksums, for a WireGuard peer or a device without offloads
    cut      into smaller superpackets of whole segments, with checksums still unfinished, to fit the room in a record

Flow:
    1. `split()` or `cut()` reads the headers once and returns the number of segments.
    2. `write_run()` writes any run of segments as one packet into the caller's buffer.

These fields are set in each piece: IP and UDP lengths; IPv4 identification, advanced by the number of segments before
it, and header checksum; TCP sequence number, CWR on the first piece only, FIN and PSH on the last only. Checksums are
derived from the unfinished one by differences, so the pseudo header's addresses are never read. In a frame of a TAP
device the bytes before the IP header are repeated in front of each piece.

Interface:
    Splitter().split(packet, field, lead) -> count   .count  .length
    Splitter().cut(packet, field, lead) -> count
        .fitting(room) -> segments   .write_run(first, count, out, at) -> length   .field_of(first, count)
    For the opposite direction see vpntun.wire.gro_coalescer.
"""

from __future__ import annotations

import struct

from vpntun.errors import BadPacket
from vpntun.wire.checksum import TCP, ones_sum
from vpntun.wire.transport_header import shape_of
from vpntun.wire.vnet import SEGMENT_SIZE, UNFINISHED

_FIN_PSH, _CWR = 0x09, 0x80

# from offset 2: total length, identification, fragment, TTL and protocol, checksum
_IPV4_WORDS = struct.Struct("!HHHHH")
_TCP_WORDS = struct.Struct("!IIHHH")  # from offset 4: sequence, acknowledgment, offset and flags, window, checksum
_UDP_WORDS = struct.Struct("!HH")  # from offset 4: length, checksum
_IPV6_LENGTH = struct.Struct("!H")


class Splitter:
    """Cutter of one superpacket at a time, reused for the next, so that no object is created per packet.

    The superpacket has `count` segments. Each makes a packet of `length` bytes, the last one perhaps a shorter one. The
    superpacket must stay unchanged until the last packet is written.
    """

    def __init__(self) -> None:
        self.count = self.length = 0
        self._packet = memoryview(b"")
        self._lead = 0
        self._protocol = self._start = self._end = 0
        self._size = 1
        self._finish = False
        self._ipv4 = False
        self._ip_words = (0, 0, 0, 0, 0)
        self._ip_sum = 0
        self._tcp_words = (0, 0, 0, 0, 0)
        self._transport_sum = self._header_sum = 0

    def split(self, packet: memoryview, field: int, lead: int = 0) -> int:
        """Prepare to cut `packet` into single segments with finished checksums; return their number.

        `packet` is exactly the IP packet, behind `lead` other bytes, and `field` its segment field, with or without a
        gso_size. Raises BadPacket as `shape_of` does, and "bad segment field" if the checksum is already finished.
        """
        self._load(packet, field, lead)
        self._finish = True
        return self.count

    def cut(self, packet: memoryview, field: int, lead: int = 0) -> int:
        """Prepare to cut `packet` into runs of segments with unfinished checksums; return the number of segments.

        Raises BadPacket as `split` does.
        """
        self._load(packet, field, lead)
        self._finish = False
        return self.count

    def fitting(self, room: int) -> int:
        """Return how many segments fit in `room` bytes together with their headers; may be negative."""
        return (room - self._end) // self._size

    def field_of(self, first: int, count: int) -> int:
        """The segment field of a run; without a gso_size if the run is a single segment."""
        return UNFINISHED | (self._size if min(count, self.count - first) > 1 else 0)

    def write_run(self, first: int, count: int, out: memoryview, at: int) -> int:
        """Write `count` segments, from number `first` on, as one packet at `out[at]`; return the packet's length."""
        packet, end = self._packet, self._end
        begin = end + first * self._size
        payload = packet[begin : begin + count * self._size]
        length = end + len(payload)
        out[at : at + end] = packet[:end]
        out[at + end : at + length] = payload
        lead = self._lead
        if lead:
            at += lead
            length -= lead
        if self._ipv4:
            _, identification, fragment, lifetime, _ = self._ip_words
            identification = (identification + first) & 0xFFFF
            checksum = -(self._ip_sum + length + identification) % 0xFFFF
            _IPV4_WORDS.pack_into(out, at + 2, length, identification, fragment, lifetime, checksum)
        else:
            _IPV6_LENGTH.pack_into(out, at + 4, length - 40)
        if self._protocol == TCP:
            self._write_tcp(first, first + count >= self.count, out, at + self._start, length - self._start, payload)
        else:
            self._write_udp(out, at + self._start, length - self._start, payload)
        return lead + length

    def _load(self, packet: memoryview, field: int, lead: int) -> None:
        """Read the headers, and sum the fields that are the same in every piece.

        `_start` is the offset of the transport header in the IP packet, `_end` that of the payload in all of `packet`.
        """
        if not field & UNFINISHED:
            raise BadPacket("bad segment field")
        self._packet, self._lead = packet, lead
        if lead:
            packet = packet[lead:]
        length = len(packet)
        self._protocol, start, end = shape_of(packet, length)
        self._start, self._end = start, lead + end
        size = self._size = field & SEGMENT_SIZE or max(1, length - end)
        payload = length - end
        self.count = max(1, -(-payload // size))
        self.length = self._end + min(size, payload)
        self._ipv4 = packet[0] < 0x50
        if self._ipv4:
            self._ip_words = total, identification, _, _, checksum = _IPV4_WORDS.unpack_from(packet, 2)
            self._ip_sum = ones_sum(packet[:start]) - total - identification - checksum
        if self._protocol == TCP:
            self._tcp_words = sequence, _, flags, _, checksum = _TCP_WORDS.unpack_from(packet, start + 4)
            changing = (sequence >> 16) + (sequence & 0xFFFF) + flags + checksum
        else:
            udp_length, checksum = _UDP_WORDS.unpack_from(packet, start + 4)
            changing = udp_length + checksum
        self._transport_sum = checksum - (length - start)  # the pseudo header without the length
        self._header_sum = ones_sum(packet[start:end]) - changing

    def _write_tcp(self, first: int, is_last: bool, out: memoryview, at: int, length: int, payload: memoryview) -> None:
        sequence, acknowledgment, flags, window, _ = self._tcp_words
        sequence = (sequence + first * self._size) & 0xFFFFFFFF
        if first:
            flags &= ~_CWR
        if not is_last:
            flags &= ~_FIN_PSH
        total = self._transport_sum + length
        if self._finish:
            total += self._header_sum + (sequence >> 16) + (sequence & 0xFFFF) + flags + ones_sum(payload)
            checksum = -total % 0xFFFF
        else:
            checksum = total % 0xFFFF or 0xFFFF
        _TCP_WORDS.pack_into(out, at + 4, sequence, acknowledgment, flags, window, checksum)

    def _write_udp(self, out: memoryview, at: int, length: int, payload: memoryview) -> None:
        total = self._transport_sum + length
        if self._finish:
            total = -(total + self._header_sum + length + ones_sum(payload))
        _UDP_WORDS.pack_into(out, at + 4, length, total % 0xFFFF or 0xFFFF)
