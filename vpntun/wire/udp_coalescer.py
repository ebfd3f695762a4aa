"""Send coalescing of UDP: joins a run of one flow's datagrams into a superpacket, inside the BUNDLE.

A socket that sends small datagrams one by one hands them to the device one by one. Each costs the other end a BUNDLE
entry, a system call and a walk through its kernel; a superpacket costs one of each for up to 64 datagrams. The kernel
at the other end cuts it into exactly the same datagrams again (USO, drivers/net/tun.c, net/ipv4/udp_offload.c), as it
does with superpackets of its own GRO.

    begin     a datagram with an unfinished checksum has been entered in a BUNDLE; a run may follow
    extend    the next datagram lies where its own entry would begin. If it has the same flow and length, and the next
              IPv4 identification (unless DF makes that meaningless, RFC 6864), its payload is moved behind the previous
              one's. Everything found out about the first datagram holds for it, so it is not parsed. In frames of a
              TAP device all bytes before the IP header must be the same, too
    finish    lengths, header checksum, pseudo header sum and segment field are written, once per run

No datagram waits for another: the run ends when the record does.
"""

from __future__ import annotations

import struct
from functools import cache

from vpntun.wire.checksum import UDP, UDP_CHECKSUM, pseudo_sum, set_ipv4_header
from vpntun.wire.message import Buffer
from vpntun.wire.record import ENTRY, ENTRY_SIZE
from vpntun.wire.transport_header import UDP_HEADER_SIZE
from vpntun.wire.vnet import MOST_UDP_SEGMENTS, SEGMENT_SIZE, UNFINISHED

_WORD = struct.Struct("!H")
_DF = 0x40


class UdpCoalescer:
    """The run at the end of the bundle in `record`.

    The methods' `header` is the packet's virtio_net_hdr as the device gave it.
    """

    def __init__(self, record: memoryview) -> None:
        self._record = record
        self._entry = self._begin = self._end = 0
        self.start = 0
        """Offset of the UDP header in the run's packet; 0 if there is no run."""
        self._lead = 0  # bytes before its IP header
        self._ipv4 = False
        self._identification_at = 0  # offset of the identification that counts up; 0 if none must
        self._size = 0  # of each packet, in bytes
        self._count = 0
        self._key = self._mask = 0
        self._header: Buffer = b""

    def begin(self, header: bytearray | memoryview, entry: int, size: int, lead: int = 0) -> None:
        """Begin a run, if possible, with the packet that was entered at `entry`.

        It has `size` bytes, `lead` of them before its IP header, and an unfinished checksum, and has been checked.
        """
        record, begin = self._record, entry + ENTRY_SIZE
        ip = begin + lead
        self.start = self._identification_at = 0
        if record[ip] == 0x45:
            if record[ip + 9] != UDP or size <= lead + 20 + UDP_HEADER_SIZE:
                return
            self.start, self._ipv4 = lead + 20, True
            if not record[ip + 6] & _DF:
                self._identification_at = lead + 4
        elif record[ip] >> 4 == 6 and record[ip + 6] == UDP and size > lead + 40 + UDP_HEADER_SIZE:
            self.start, self._ipv4 = lead + 40, False
        else:
            return
        if size - self.start - UDP_HEADER_SIZE > SEGMENT_SIZE:  # no segment field could express it
            self.start = 0
            return
        self._lead, self._mask = lead, _mask_for(lead, self._ipv4)
        self._header = bytes(header)
        self._entry, self._begin, self._end, self._size, self._count = entry, begin, begin + size, size, 1
        self._key = int.from_bytes(record[begin : begin + self.start + UDP_HEADER_SIZE], "big") & self._mask

    def extend(self, header: bytearray | memoryview, begin: int, size: int, room: int) -> int:
        """Add the packet at `begin` to the run before it; return the run's new end, or 0 if it does not belong there.

        The record may become at most `room` bytes long.
        """
        start = self.start
        if not start or size != self._size or self._count == MOST_UDP_SEGMENTS or header != self._header:
            return 0
        record, headers = self._record, start + UDP_HEADER_SIZE
        if int.from_bytes(record[begin : begin + headers], "big") & self._mask != self._key:
            return 0
        end = self._end + size - headers
        if end > room or end - self._begin > 0xFFFF:
            return 0
        at = self._identification_at
        if at:
            first = _WORD.unpack_from(record, self._begin + at)[0]
            if _WORD.unpack_from(record, begin + at)[0] != (first + self._count) & 0xFFFF:
                return 0
        record[self._end : end] = record[begin + headers : begin + size]
        self._end = end
        self._count += 1
        return end

    def finish(self) -> None:
        """End the run, and write the superpacket's headers and entry."""
        start, self.start = self.start, 0
        if not start or self._count == 1:
            return
        size = self._end - self._begin
        packet = self._record[self._begin + self._lead : self._end]
        length = len(packet)
        if self._ipv4:
            _WORD.pack_into(packet, 2, length)
            set_ipv4_header(packet)
        else:
            _WORD.pack_into(packet, 4, length - 40)
        udp = start - self._lead
        _WORD.pack_into(packet, udp + 4, length - udp)
        _WORD.pack_into(packet, udp + UDP_CHECKSUM, pseudo_sum(packet, UDP, length - udp) or 0xFFFF)
        ENTRY.pack_into(self._record, self._entry, size, UNFINISHED | (self._size - start - UDP_HEADER_SIZE))


@cache
def _mask_for(lead: int, ipv4: bool) -> int:
    """Return a mask of ones, with zeros where the headers of one run may differ."""
    mask = bytearray(b"\xff" * (lead + (20 if ipv4 else 40) + UDP_HEADER_SIZE))
    if ipv4:
        mask[lead + 4 : lead + 6] = bytes(2)  # identification
        mask[lead + 10 : lead + 12] = bytes(2)  # header checksum
    return int.from_bytes(mask, "big")
