"""Send coalescing of UDP: joins a run of one flow's datagrams into a superpacket, inside the BUNDLE.

A socket that sends small datagrams one by one hands them to the device one by one. Each costs the other end a BUNDLE
entry, a system call and a walk through its kernel; a superpacket costs one of each for up to 64 datagrams. The kernel
at the other end cuts it into exactly the same datagrams again (USO, drivers/net/tun.c, net/ipv4/udp_offload.c), as it
does with superpackets of its own GRO.

    begin     a datagram with an unfinished checksum has been entered in a BUNDLE; a run may follow
    extend    the next datagram lies where its own entry would begin. If it has the same flow and length, and the next
              IPv4 identification (unless DF makes that meaningless, RFC 6864), its payload is moved behind the previous
              one's. Everything found out about the first datagram holds for it, so it is not parsed
    finish    lengths, header checksum, pseudo header sum and segment field are written, once per run

No datagram waits for another: the run ends when the record does.
"""

from __future__ import annotations

import struct

from vpntun.wire.checksum import UDP, UDP_CHECKSUM, pseudo_sum, set_ipv4_header
from vpntun.wire.message import Buffer
from vpntun.wire.record import ENTRY, ENTRY_SIZE
from vpntun.wire.transport_header import UDP_HEADER_SIZE
from vpntun.wire.vnet import MOST_UDP_SEGMENTS, UNFINISHED

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
        self._size = 0  # of each packet, in bytes
        self._count = 0
        self._key = self._mask = 0
        self._header: Buffer = b""

    def begin(self, header: bytearray | memoryview, entry: int, size: int) -> None:
        """Begin a run, if possible, with the packet that was entered at `entry`.

        It has `size` bytes and an unfinished checksum, and has been checked.
        """
        record, begin = self._record, entry + ENTRY_SIZE
        self.start = 0
        if record[begin] == 0x45:
            if record[begin + 9] != UDP or size <= 20 + UDP_HEADER_SIZE:
                return
            self.start, self._mask = 20, _MASK_V4
        elif record[begin] >> 4 == 6 and record[begin + 6] == UDP and size > 40 + UDP_HEADER_SIZE:
            self.start, self._mask = 40, _MASK_V6
        else:
            return
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
        if start == 20 and not record[begin + 6] & _DF:
            first = _WORD.unpack_from(record, self._begin + 4)[0]
            if _WORD.unpack_from(record, begin + 4)[0] != (first + self._count) & 0xFFFF:
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
        packet = self._record[self._begin : self._end]
        length = len(packet)
        if start == 20:
            _WORD.pack_into(packet, 2, length)
            set_ipv4_header(packet)
        else:
            _WORD.pack_into(packet, 4, length - 40)
        _WORD.pack_into(packet, start + 4, length - start)
        _WORD.pack_into(packet, start + UDP_CHECKSUM, pseudo_sum(packet, UDP, length - start) or 0xFFFF)
        ENTRY.pack_into(self._record, self._entry, length, UNFINISHED | (self._size - start - UDP_HEADER_SIZE))


def _mask_without(size: int, *variable: tuple[int, int]) -> int:
    mask = bytearray(b"\xff" * size)
    for begin, end in variable:
        mask[begin:end] = bytes(end - begin)
    return int.from_bytes(mask, "big")


_MASK_V4 = _mask_without(28, (4, 6), (10, 12))  # identification and header checksum
_MASK_V6 = _mask_without(48)
