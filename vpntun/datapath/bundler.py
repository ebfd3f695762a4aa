"""Packets to a peer that takes records: as many as fit in one BUNDLE, sealed once, sent by one call.

    1. a packet lies where its place in the record is already (the device was read into it), or is copied there
    2. it does not fit in what is left: the record leaves, and the packet begins the next
    3. it does not fit at all: it is a superpacket, and is cut so that this record is filled, and the next
    4. the peer lacks an offload that it needs: it is split into packets with finished checksums
    5. no record can leave now: it goes on as a plain packet, or waits

No record waits for more packets: `flush` when no more are at hand, or when another link's turn comes. One bundler
serves all links, so that its buffers are few and stay in the processor's cache.
"""

from __future__ import annotations

from vpntun.datapath.link import Link
from vpntun.datapath.plain import PlainSender
from vpntun.datapath.seal_buffer import SealBuffer
from vpntun.errors import BadPacket
from vpntun.tun.base import LARGEST_PACKET
from vpntun.wire.gso import Splitter
from vpntun.wire.message import LARGEST
from vpntun.wire.record import (
    BUNDLE_START,
    ENTRY,
    ENTRY_SIZE,
    MOST_PACKETS,
    TAKES_ALL,
    begin_bundle,
    needs_of,
    put_entry,
)
from vpntun.wire.udp_coalescer import UdpCoalescer
from vpntun.wire.vnet import SEGMENT_SIZE, SPLIT_FIRST, UNFINISHED, segment_field_of

WORTH_BEGINNING = 4
"""A superpacket is begun in what is left of a record if that holds a fourth of what an empty one does."""
SMALL = 32 * 1024
"""A packet up to this size is no sign that more will have to be cut."""

_put_entry = ENTRY.pack_into


class Bundler:
    """Builds one record at a time, for `link`; None between records.

    The outbound loop reads each packet to `place`, then has it joined to the datagrams before it (`joins`), or entered
    for a link (`enter`). Everything else comes by `turn_to` and `add`.
    """

    def __init__(self, plain: PlainSender, seal_buffer: SealBuffer) -> None:
        self.link: Link | None = None
        self._record = memoryview(bytearray(LARGEST + ENTRY_SIZE + LARGEST_PACKET))
        self._at = begin_bundle(self._record)
        self._packets = 0
        self._room = 0
        """Bytes that the record may have; 0: none can leave."""
        self._run = UdpCoalescer(self._record)
        self._apart = memoryview(bytearray(LARGEST_PACKET))
        """Where the device is read while superpackets have to be cut: their pieces are written elsewhere."""
        self._cuts = False
        """Whether superpackets have to be cut."""
        self._read_at = 0
        """Where in the record the last packet was read; 0: apart."""
        self._plain = plain
        self._seal_buffer = seal_buffer
        self._splitter = Splitter()
        self._aside: list[tuple[bytes, int]] | None = None
        self._waiting: dict[Link, None] = {}  # in the order of their turns
        self._sent = 0
        """Records sent since the device was last read."""

    def place(self) -> memoryview:
        """Return where to read the next packet: right behind the record, or apart."""
        if self._cuts:
            self._read_at = 0
            return self._apart
        begin = self._read_at = self._at + ENTRY_SIZE
        return self._record[begin : begin + LARGEST_PACKET]

    def joins(self, header: memoryview, size: int) -> bool:
        """Take in the packet of `size` bytes at `place`, if it continues the UDP datagrams that the record ends with.

        `header`: its virtio_net_hdr. It has the addresses and ports of the datagram before, so nothing else is checked.
        """
        if self._sent and self.link is not None:
            self.link.note_backlog(self._sent)
            self._sent = 0
        if self._cuts:
            self._cuts = size > SMALL or size > self._room > 0
            return False
        run = self._run
        if run.start and (end := run.extend(header, self._read_at, size, self._room)):
            self._at = end
            return True
        return False

    def enter(self, link: Link, header: memoryview, packet: memoryview) -> None:
        """Send the packet at `place` to a link, or let it wait. Raises BadPacket for one that cannot be split."""
        field = segment_field_of(header, packet) if header[0] or header[1] else 0
        if link is not self.link:
            self.turn_to(link)
        at, size = self._at, len(packet)
        begin = at + ENTRY_SIZE
        fits = begin == self._read_at and begin + size <= self._room and not field & SPLIT_FIRST
        if fits and self._packets < MOST_PACKETS and (not field or link.records.takes == TAKES_ALL):
            run = self._run
            if run.start:
                run.finish()
            _put_entry(self._record, at, size, field)
            if field == UNFINISHED:
                run.begin(header, at, size)
            self._at = begin + size
            self._packets += 1
        else:
            self.add(packet, field)

    def drained(self) -> None:
        """Note that the device, or the relay, has no more packets for now."""
        self._sent = 0

    def note_more(self, link: Link) -> None:
        """Note that there was another packet for `link` after the records that have been sent."""
        if self._sent:
            if self.link is link:
                link.note_backlog(self._sent)
            self._sent = 0

    def turn_to(self, link: Link) -> None:
        """The next packets are for `link`; what is there for another leaves."""
        if self.link is not None or self._seal_buffer.pending:
            self.flush()
        self.link = link
        self._room = 0 if link.queue.size and self._aside is None else link.room_for_record()

    def add(self, packet: memoryview, field: int) -> None:
        """Send a packet to the link turned to, or let it wait.

        `packet` may lie in the record's buffer, from `at + ENTRY_SIZE` on. Raises BadPacket where it cannot be split.
        """
        link = self.link
        if link is None:
            return
        takes = link.records.takes
        if field & SPLIT_FIRST or (field and self._room and takes != TAKES_ALL and needs_of(packet, field) & ~takes):
            self._add_single_packets(link, packet, field & ~SPLIT_FIRST)
        elif field & SEGMENT_SIZE and self._room and self._at + ENTRY_SIZE + len(packet) > self._room:
            self._add_pieces(link, packet, field)
        else:
            self._place(link, packet, field)

    def drain(self, link: Link) -> None:
        """Send what waits in a link's queue, in order, as far as its path takes it."""
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
        finally:
            aside, self._aside = self._aside, None
            for packet, field in reversed(aside):
                queue.put_back((packet, field, arrival))

    def drain_all(self) -> None:
        """Send what waits in any link's queue; a link whose path took only a part of it comes last next time."""
        for link in list(self._waiting):
            self._waiting.pop(link, None)
            try:
                self.drain(link)
            finally:
                if link.queue:
                    self._waiting[link] = None

    def forget(self, link: Link) -> None:
        """A link is no more."""
        self._waiting.pop(link, None)

    def discard(self) -> None:
        """Drop what is half built: an error has interrupted it."""
        self.link = None
        self._at, self._packets, self._room = BUNDLE_START, 0, 0
        self._run.start = self._sent = 0
        self._seal_buffer.discard()

    def flush(self) -> None:
        """Send what is there."""
        link, self.link = self.link, None
        if link is not None and self._at > BUNDLE_START:
            self._seal_record(link, is_last=True)
        if self._seal_buffer.pending:
            self._seal_buffer.flush()
        self._room = 0

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
                    self._plain.send(link, session, packet, field)
                    self._room = link.room_for_record()
                return
        self._run.finish()
        begin = self._at + ENTRY_SIZE
        self._record[begin : begin + length] = packet
        self._enter(length, field)

    def _has_room(self, length: int) -> bool:
        return self._packets < MOST_PACKETS and self._at + ENTRY_SIZE + length <= self._room

    def _enter(self, length: int, field: int) -> None:
        """The packet lies in its place."""
        self._at = put_entry(self._record, self._at, length, field)
        self._packets += 1

    def _let_wait(self, link: Link, packet: memoryview, field: int) -> None:
        self._room = 0  # no later packet may overtake it
        if self._aside is None:
            link.enqueue(packet, field)
            self._waiting[link] = None
        else:
            self._aside.append((bytes(packet), field))

    def _send_record(self) -> None:
        """The record leaves; what may leave next is asked anew where the path may be blocked now."""
        if self.link is not None and self._at > BUNDLE_START and self._seal_record(self.link):
            self._room = self.link.room_for_record()

    def _seal_record(self, link: Link, *, is_last: bool = False) -> bool:
        if self._run.start:
            self._run.finish()
        end, self._at, self._packets = self._at, BUNDLE_START, 0
        self._sent += 1
        return link.send_record(self._record[:end], is_last=is_last)

    def _add_pieces(self, link: Link, packet: memoryview, field: int) -> None:
        """Cut a superpacket so that each record is filled; the last piece's record stays open for what follows."""
        self._cuts = True
        splitter = self._splitter
        count = splitter.cut(self._set_apart(packet), field)
        most = splitter.fitting(self._room - BUNDLE_START - ENTRY_SIZE)
        first = self._add_segments(link, count) if most == 1 else 0
        worth = most // WORTH_BEGINNING
        while first < count:
            fit = splitter.fitting(self._room - self._at - ENTRY_SIZE) if self._packets < MOST_PACKETS else 0
            if fit < min(count - first, max(1, worth)) and self._at > BUNDLE_START:
                self._send_record()
            elif fit > 0:
                taken = min(fit, count - first)
                self._run.finish()
                length = splitter.write_run(first, taken, self._record, self._at + ENTRY_SIZE)
                self._enter(length, splitter.field_of(first, taken))
                first += taken
            else:  # the path is blocked now, or too narrow for a record
                rest = memoryview(bytearray(len(packet)))
                length = splitter.write_run(first, count - first, rest, 0)
                self._place(link, rest[:length], splitter.field_of(first, count - first))
                break

    def _add_segments(self, link: Link, count: int) -> int:
        """Send each segment of the superpacket in a record of its own, as long as the path is ready; how many went."""
        self._send_record()
        record, splitter, at = self._record, self._splitter, BUNDLE_START + ENTRY_SIZE
        for index in range(count):
            if not self._room:
                return index
            length = splitter.write_run(index, 1, record, at)
            self._sent += 1
            if link.send_record(record[: put_entry(record, BUNDLE_START, length, UNFINISHED)]):
                self._room = link.room_for_record()
        return count

    def _add_single_packets(self, link: Link, packet: memoryview, field: int) -> None:
        splitter = self._splitter
        piece = memoryview(bytearray(len(packet)))
        for index in range(splitter.split(self._set_apart(packet), field)):
            length = splitter.write_run(index, 1, piece, 0)
            self._place(link, piece[:length], 0)

    def _set_apart(self, packet: memoryview) -> memoryview:
        """The packet where no piece of it will be written."""
        if packet.obj is self._apart.obj:
            return packet
        source = self._apart[: len(packet)]
        source[:] = packet
        return source
