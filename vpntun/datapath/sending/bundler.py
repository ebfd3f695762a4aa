"""Bundler of packets to a peer that takes records: a BUNDLE is sealed once and sent by one call.

    1. The packet is already at its place in the record, because the device was read into it; or it is copied there.
    2. A superpacket that fills a record by itself goes straight to its link (`Link.send_straight`). So does a packet
       after which no other is expected.
    3. If a packet does not fit in the rest of the record, the record is sent, and the packet begins the next one where
       it is.
    4. If it is a superpacket and fits in no record, it is cut so that this record and the following ones are filled.
    5. If it needs an offload that the peer lacks, it is split into packets with finished checksums.
    6. If no record can be sent now, it is sent as a plain packet, or waits.

All packets of a record have the same ECN field, which its datagrams get too; a packet with another one begins the next
record. If DSCP is copied as well, the same holds for that (wire/ip.py).

No record waits for more packets. It is sent as soon as no more are at hand, the next packet is for another link, or
another superpacket like its last one would not fit. One bundler serves all links, so that its buffers are few and stay
in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable

from vpntun.datapath.sending.plain import PlainSender
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.tun.base import LARGEST_PACKET
from vpntun.wire.ethernet.frame import HEADER_SIZE, ip_at, tos_of_frame
from vpntun.wire.gso import Splitter
from vpntun.wire.ip import DSCP, ECN, MAY_HAVE_ECN, tos_of
from vpntun.wire.message import LARGEST
from vpntun.wire.record import (
    BUNDLE,
    BUNDLE_START,
    ENTRY,
    ENTRY_SIZE,
    FRAMES,
    MOST_PACKETS,
    TAKES_ALL,
    begin_bundle,
    needs_of,
    put_entry,
)
from vpntun.wire.udp_coalescer import UdpCoalescer
from vpntun.wire.vnet import SEGMENT_SIZE, SPLIT_FIRST, UNFINISHED

WORTH_BEGINNING = 4
"""A superpacket is begun in the rest of a record if that has room for a fourth of what an empty record holds."""
SMALL = 32 * 1024
"""Bytes. A packet up to this size may share its record with others like it."""

FIRST_PACKET = BUNDLE_START + ENTRY_SIZE
"""Offset of a record's first packet."""

_put_entry = ENTRY.pack_into


class Bundler:
    """Builder of one record at a time, for `link`, which is None between records.

    The outbound loop reads each packet to `place`, then joins it to the datagrams before it (`joins`), or enters it for
    a link (`enter`). All other callers use `turn_to` and `add`. `copies_dscp`: datagrams get the packets' DSCP.
    `frames`: the packets are Ethernet frames.
    """

    def __init__(
        self, plain: PlainSender, seal_buffer: SealBuffer, *, copies_dscp: bool = False, frames: bool = False
    ) -> None:
        self.link: Link | None = None
        self._kind = FRAMES if frames else BUNDLE
        self._lead_of: Callable[[memoryview], int] = ip_at if frames else _no_lead
        self._tos_of = tos_of_frame if frames else tos_of
        self._tos_at = HEADER_SIZE + 1 if frames else 1
        """Offset of the byte that has the ECN field of an IP packet, if there is no VLAN tag."""
        self._buffer = memoryview(bytearray(2 * LARGEST + ENTRY_SIZE + LARGEST_PACKET))
        self._start = 0
        """Offset of the record in the buffer."""
        self._at = begin_bundle(self._buffer, self._kind)
        """Offset of the record's end, and of its next entry."""
        self._packets = 0
        self._room = 0
        """Bytes that a record may have; 0: none can be sent."""
        self._end = 0
        """Offset in the buffer at which this record must end."""
        self._tos = 0
        """TOS byte of the record's datagrams."""
        self._copied = ECN | DSCP if copies_dscp else ECN
        """Bits of the TOS byte that are copied from packets."""
        self._reads_tos = self._always_reads_tos = copies_dscp
        """Whether the next packet's TOS byte may differ from the record's although it cannot have an ECN field."""
        self._run = UdpCoalescer(self._buffer)
        self._apart = memoryview(bytearray(LARGEST_PACKET))
        """Buffer for reads of the device while superpackets have to be cut: their pieces are written to the record."""
        self._cuts = False
        """Whether superpackets have to be cut: one was, and since then none came that fits in a record."""
        self._read_at = 0
        """Offset in the buffer to which the last packet was read; 0: it was read to `_apart`."""
        self._plain = plain
        self._seal_buffer = seal_buffer
        self._splitter = Splitter()
        self._aside: list[tuple[bytes, int]] | None = None  # while a queue is drained: packets to put back into it
        self._waiting: dict[Link, None] = {}  # in the order in which they are drained
        self._sent = 0
        """Records sent since the device was last read."""
        self._sender: Link | None = None
        """The link that sent them."""

    def place(self) -> memoryview:
        """Return the buffer for the next packet: directly behind the record, or `_apart`."""
        if self._cuts:
            self._read_at = 0
            return self._apart
        begin = self._read_at = self._at + ENTRY_SIZE
        return self._buffer[begin : begin + LARGEST_PACKET]

    def joins(self, header: bytearray | memoryview, size: int) -> bool:
        """Join the packet of `size` bytes at `place` to the UDP datagrams at the record's end, if it continues them.

        `header`: its virtio_net_hdr. Returns whether it was joined; then its addresses and ports need no check.
        """
        if self._sent:
            if self._sender is not None:
                self._sender.note_backlog(self._sent)
            self._sent = 0
        run = self._run
        if run.start and self._read_at and (end := run.extend(header, self._read_at, size, self._end)):
            self._at = end
            return True
        return False

    def enter(self, link: Link, header: bytearray | memoryview, packet: memoryview, field: int, is_last: bool) -> None:
        """Send the packet at `place` to a link, or let it wait. Raises BadPacket if it cannot be split.

        `field`: its segment field, and SPLIT_FIRST if no peer would take it whole. `is_last`: the device is expected to
        have no other packet.
        """
        begin, size = self._read_at, len(packet)
        if self._reads_tos or (size > self._tos_at and packet[self._tos_at] & MAY_HAVE_ECN):
            self._follow_tos(packet)
        if link is not self.link:
            if (size > SMALL or is_last) and self.link is None and self._went_straight(link, begin, size, field):
                return
            self.turn_to(link)
        if begin and not field & SPLIT_FIRST and (not field or link.records.takes == TAKES_ALL):
            end = begin + size
            if self._packets and (end > self._end or self._packets == MOST_PACKETS):
                self._send_record()
            if not self._packets and begin - FIRST_PACKET != self._start:
                self._begin_at(begin - FIRST_PACKET, size)
            if end <= self._end and self._at + ENTRY_SIZE == begin:
                if self._run.start:
                    self._run.finish()
                _put_entry(self._buffer, begin - ENTRY_SIZE, size, field)
                if field == UNFINISHED:
                    self._run.begin(header, begin - ENTRY_SIZE, size, self._lead_of(packet))
                self._at = end
                self._packets += 1
                if size > SMALL and end + ENTRY_SIZE + size > self._end:
                    self._send_last()
                return
        self.add(packet, field)

    def _went_straight(self, link: Link, begin: int, size: int, field: int) -> bool:
        """Send a packet as a record of its own, if it is at its place and the link needs no check."""
        if begin != FIRST_PACKET or field & SPLIT_FIRST:
            return False
        _put_entry(self._buffer, BUNDLE_START, size, field)
        if not link.send_straight(self._buffer[: begin + size], self._tos):
            return False
        self._sender = link
        self._sent += 1
        return True

    def drained(self) -> None:
        """Note that the device, or the relay, has no more packets for now."""
        self._sent = 0

    def note_more(self, link: Link) -> None:
        """Note that another packet for `link` was at hand after the records that have been sent."""
        if self._sent:
            if self._sender is link:
                link.note_backlog(self._sent)
            self._sent = 0

    def turn_to(self, link: Link) -> None:
        """Select the link that the next packets are for; send what was built for another."""
        if self.link is not None or self._seal_buffer.pending:
            self.flush()
        self.link = link
        self._room = self._end = 0 if link.queue.size and self._aside is None else link.room_for_record()

    def add(self, packet: memoryview, field: int) -> None:
        """Send a packet to the selected link, or let it wait. Raises BadPacket if it cannot be split.

        `packet` may be in the bundler's buffer, from `_at + ENTRY_SIZE` on.
        """
        link = self.link
        if link is None:
            return
        if self._reads_tos or (len(packet) > self._tos_at and packet[self._tos_at] & MAY_HAVE_ECN):
            self._follow_tos(packet)
        if self._cuts and FIRST_PACKET + len(packet) <= self._room:
            self._cuts = False
        takes = link.records.takes
        if field & SPLIT_FIRST or (field and self._room and takes != TAKES_ALL and self._lacks(takes, packet, field)):
            self._add_single_packets(link, packet, field & ~SPLIT_FIRST)
        elif field & SEGMENT_SIZE and 0 < self._room < FIRST_PACKET + len(packet):
            self._add_pieces(link, packet, field)
        else:
            self._place(link, packet, field)

    def drain(self, link: Link) -> None:
        """Send the packets in a link's queue, in order, until its path accepts no more."""
        queue = link.queue
        if not queue or self._aside is not None:
            return
        self._aside = []
        arrival = link.now
        try:
            self.turn_to(link)
            while not self._aside and link.session_to_send_with() is not None:
                waited = queue.take(link.now)
                if waited is None:
                    break
                packet, field, arrival = waited
                try:
                    self.add(memoryview(packet), field)
                except BadPacket as bad:
                    link.drops[bad.reason] += 1
            self.flush()
            self.drained()
        finally:
            aside, self._aside = self._aside, None
            for packet, field in reversed(aside):
                queue.put_back((packet, field, arrival))

    def drain_all(self) -> None:
        """Send the packets in all links' queues. A link that keeps packets is drained last next time."""
        for link in list(self._waiting):
            self._waiting.pop(link, None)
            try:
                self.drain(link)
            finally:
                if link.queue:
                    self._waiting[link] = None

    def forget(self, link: Link) -> None:
        """Forget a removed link."""
        self._waiting.pop(link, None)
        if self._sender is link:
            self._sender = None

    def discard(self) -> None:
        """Drop the record that an error has interrupted."""
        self.link = None
        self._begin_again()
        self._allow(0)
        self._run.start = self._sent = 0
        self._seal_buffer.discard()

    def flush(self) -> None:
        """Send the record, and the messages that are sealed and not sent."""
        link, self.link = self.link, None
        if link is not None and self._packets:
            self._seal_record(link, is_last=True)
        if self._seal_buffer.pending:
            self._seal_buffer.flush()
        self._room = self._end = 0

    def _follow_tos(self, packet: memoryview) -> None:
        """Send the record if the packet needs another TOS byte, and give that to the next record."""
        tos = self._tos_of(packet) & self._copied
        if tos != self._tos:
            self._send_record()
            self._tos = tos
            self._reads_tos = self._always_reads_tos or tos != 0

    def _lacks(self, takes: int, packet: memoryview, field: int) -> bool:
        """Return whether a packet needs an offload that the peer lacks. Raises BadPacket."""
        return bool(needs_of(packet, field, self._lead_of(packet)) & ~takes)

    def _place(self, link: Link, packet: memoryview, field: int) -> None:
        """Enter a packet in this record or the next, send it plain, or let it wait."""
        length = len(packet)
        if not self._has_room(length):
            self._send_record()
            if not self._has_room(length):
                session = None if link.queue and self._aside is None else link.session_to_send_with()
                if session is None:
                    self._let_wait(link, packet, field)
                else:
                    self._plain.send(link, session, packet, field, self._tos)
                    self._allow(link.room_for_record())
                return
        self._run.finish()
        begin = self._at + ENTRY_SIZE
        self._buffer[begin : begin + length] = packet
        self._enter(length, field)

    def _has_room(self, length: int) -> bool:
        return self._packets < MOST_PACKETS and self._at + ENTRY_SIZE + length <= self._end

    def _allow(self, room: int) -> None:
        """Let records have this many bytes; 0: none can be sent."""
        self._room = room
        self._end = self._start + room if room else 0

    def _begin_at(self, start: int, size: int) -> None:
        """Begin a record at this offset if its first packet, which is already in the buffer, fits in it.

        The offset is limited, so that the buffer has room behind the record.
        """
        if start <= LARGEST and FIRST_PACKET + size <= self._room:
            self._start, self._at, self._end = start, start + BUNDLE_START, start + self._room
            self._buffer[start] = self._kind

    def _begin_again(self) -> None:
        """Begin a record at the start of the buffer."""
        self._start, self._at, self._packets, self._end = 0, BUNDLE_START, 0, self._room

    def _enter(self, length: int, field: int) -> None:
        """Write the entry of a packet that is already at its place in the record."""
        self._at = put_entry(self._buffer, self._at, length, field)
        self._packets += 1

    def _let_wait(self, link: Link, packet: memoryview, field: int) -> None:
        self._allow(0)  # no later packet may overtake this one
        if self._aside is None:
            link.enqueue(packet, field)
            self._waiting[link] = None
        else:
            self._aside.append((bytes(packet), field))

    def _send_record(self) -> None:
        """Send the record. If the path may be blocked now, ask again how long the next record may be."""
        if self.link is not None and self._packets and self._seal_record(self.link):
            self._allow(self.link.room_for_record())

    def _send_last(self) -> None:
        """Send the record and turn away from its link: usually no packet follows at once."""
        link, self.link = self.link, None
        if link is not None:
            self._seal_record(link)

    def _seal_record(self, link: Link, *, is_last: bool = False) -> bool:
        if self._run.start:
            self._run.finish()
        record = self._buffer[self._start : self._at]
        self._begin_again()
        self._sender = link
        self._sent += 1
        return link.send_record(record, self._tos, is_last=is_last)

    def _add_pieces(self, link: Link, packet: memoryview, field: int) -> None:
        """Cut a superpacket so that each record is filled. The last piece's record stays open for the next packets."""
        self._cuts = True
        splitter = self._splitter
        count = splitter.cut(self._set_apart(packet), field, self._lead_of(packet))
        most = splitter.fitting(self._room - FIRST_PACKET)
        first = self._add_segments(link, count) if most == 1 else 0
        worth = most // WORTH_BEGINNING
        while first < count:
            fit = splitter.fitting(self._end - self._at - ENTRY_SIZE) if self._packets < MOST_PACKETS else 0
            if fit < min(count - first, max(1, worth)) and self._packets:
                self._send_record()
            elif fit > 0:
                taken = min(fit, count - first)
                self._run.finish()
                length = splitter.write_run(first, taken, self._buffer, self._at + ENTRY_SIZE)
                self._enter(length, splitter.field_of(first, taken))
                first += taken
            else:  # the path is blocked now, or its datagrams are too short for a record
                rest = memoryview(bytearray(len(packet)))
                length = splitter.write_run(first, count - first, rest, 0)
                self._place(link, rest[:length], splitter.field_of(first, count - first))
                break

    def _add_segments(self, link: Link, count: int) -> int:
        """Send each segment of a superpacket in its own record while the path is ready; return how many were sent."""
        self._send_record()
        record, splitter, at = self._buffer, self._splitter, FIRST_PACKET
        for index in range(count):
            if not self._room:
                return index
            length = splitter.write_run(index, 1, record, at)
            self._sender = link
            self._sent += 1
            if link.send_record(record[: put_entry(record, BUNDLE_START, length, UNFINISHED)], self._tos):
                self._allow(link.room_for_record())
        return count

    def _add_single_packets(self, link: Link, packet: memoryview, field: int) -> None:
        splitter = self._splitter
        piece = memoryview(bytearray(len(packet)))
        for index in range(splitter.split(self._set_apart(packet), field, self._lead_of(packet))):
            length = splitter.write_run(index, 1, piece, 0)
            self._place(link, piece[:length], 0)

    def _set_apart(self, packet: memoryview) -> memoryview:
        """Return the packet, copied if necessary, in a buffer to which none of its pieces will be written."""
        if packet.obj is self._apart.obj:
            return packet
        source = self._apart[: len(packet)]
        source[:] = packet
        return source


def _no_lead(packet: memoryview) -> int:
    """Return the number of bytes before the IP header of a TUN device's packet: 0."""
    return 0
