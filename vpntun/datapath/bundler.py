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
from vpntun.tun.device import LARGEST_PACKET
from vpntun.wire.gso import Splitter
from vpntun.wire.message import LARGEST
from vpntun.wire.record import (
    BUNDLE_START,
    ENTRY_SIZE,
    MOST_PACKETS,
    TAKES_ALL,
    begin_bundle,
    needs_of,
    put_entry,
)
from vpntun.wire.udp_coalescer import UdpCoalescer
from vpntun.wire.vnet import SEGMENT_SIZE, SPLIT_FIRST, UNFINISHED

WORTH_BEGINNING = 4
"""A superpacket is begun in what is left of a record if that holds a fourth of what an empty one does."""


class Bundler:
    """Builds one record at a time, for `link`, of `packets` packets in `record[:at]`.

    It may become `room` bytes long; 0: none can leave.
    """

    def __init__(self, plain: PlainSender, seal_buffer: SealBuffer) -> None:
        self.record = memoryview(bytearray(LARGEST + ENTRY_SIZE + LARGEST_PACKET))
        self.at = begin_bundle(self.record)
        self.packets = 0
        self.room = 0
        self.link: Link | None = None
        self.run = UdpCoalescer(self.record)
        self.apart = memoryview(bytearray(LARGEST_PACKET))
        """Where the device is to be read while superpackets have to be cut: not where their pieces are written."""
        self.cuts = False
        """Whether they have to."""
        self._plain = plain
        self._seal_buffer = seal_buffer
        self._splitter = Splitter()
        self._aside: list[tuple[bytes, int]] | None = None
        self._waiting: dict[Link, None] = {}  # in the order of their turns
        self.sent = 0
        """Records sent since the device was last read."""

    def turn_to(self, link: Link) -> None:
        """The next packets are for `link`; what is there for another leaves."""
        if self.link is not None or self._seal_buffer.pending:
            self.flush()
        self.link = link
        self.room = 0 if link.queue.size and self._aside is None else link.room_for_record()

    def add(self, packet: memoryview, field: int) -> None:
        """Send a packet to the link turned to, or let it wait.

        `packet` may lie in the record's buffer, from `at + ENTRY_SIZE` on. Raises BadPacket where it cannot be split.
        """
        link = self.link
        if link is None:
            return
        takes = link.records.takes
        if field & SPLIT_FIRST or (field and self.room and takes != TAKES_ALL and needs_of(packet, field) & ~takes):
            self._add_single_packets(link, packet, field & ~SPLIT_FIRST)
        elif field & SEGMENT_SIZE and self.room and self.at + ENTRY_SIZE + len(packet) > self.room:
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
        self.at, self.packets, self.room = BUNDLE_START, 0, 0
        self.run.start = self.sent = 0
        self._seal_buffer.discard()

    def flush(self) -> None:
        """Send what is there."""
        link, self.link = self.link, None
        if link is not None and self.at > BUNDLE_START:
            self._seal_record(link, is_last=True)
        if self._seal_buffer.pending:
            self._seal_buffer.flush()
        self.room = 0

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
                    self.room = link.room_for_record()
                return
        self.run.finish()
        begin = self.at + ENTRY_SIZE
        self.record[begin : begin + length] = packet
        self._enter(length, field)

    def _has_room(self, length: int) -> bool:
        return self.packets < MOST_PACKETS and self.at + ENTRY_SIZE + length <= self.room

    def _enter(self, length: int, field: int) -> None:
        """The packet lies in its place."""
        self.at = put_entry(self.record, self.at, length, field)
        self.packets += 1

    def _let_wait(self, link: Link, packet: memoryview, field: int) -> None:
        self.room = 0  # no later packet may overtake it
        if self._aside is None:
            link.enqueue(packet, field)
            self._waiting[link] = None
        else:
            self._aside.append((bytes(packet), field))

    def _send_record(self) -> None:
        """The record leaves; what may leave next is asked anew where the path may be blocked now."""
        if self.link is not None and self.at > BUNDLE_START and self._seal_record(self.link):
            self.room = self.link.room_for_record()

    def _seal_record(self, link: Link, *, is_last: bool = False) -> bool:
        if self.run.start:
            self.run.finish()
        end, self.at, self.packets = self.at, BUNDLE_START, 0
        self.sent += 1
        return link.send_record(self.record[:end], is_last=is_last)

    def _add_pieces(self, link: Link, packet: memoryview, field: int) -> None:
        """Cut a superpacket so that each record is filled; the last piece's record stays open for what follows."""
        self.cuts = True
        splitter = self._splitter
        count = splitter.cut(self._set_apart(packet), field)
        most = splitter.fitting(self.room - BUNDLE_START - ENTRY_SIZE)
        first = self._add_segments(link, count) if most == 1 else 0
        worth = most // WORTH_BEGINNING
        while first < count:
            fit = splitter.fitting(self.room - self.at - ENTRY_SIZE) if self.packets < MOST_PACKETS else 0
            if fit < min(count - first, max(1, worth)) and self.at > BUNDLE_START:
                self._send_record()
            elif fit > 0:
                taken = min(fit, count - first)
                self.run.finish()
                length = splitter.write_run(first, taken, self.record, self.at + ENTRY_SIZE)
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
        record, splitter, at = self.record, self._splitter, BUNDLE_START + ENTRY_SIZE
        for index in range(count):
            if not self.room:
                return index
            length = splitter.write_run(index, 1, record, at)
            self.sent += 1
            if link.send_record(record[: put_entry(record, BUNDLE_START, length, UNFINISHED)]):
                self.room = link.room_for_record()
        return count

    def _add_single_packets(self, link: Link, packet: memoryview, field: int) -> None:
        splitter = self._splitter
        piece = memoryview(bytearray(len(packet)))
        for index in range(splitter.split(self._set_apart(packet), field)):
            length = splitter.write_run(index, 1, piece, 0)
            self._place(link, piece[:length], 0)

    def _set_apart(self, packet: memoryview) -> memoryview:
        """The packet where no piece of it will be written."""
        if packet.obj is self.apart.obj:
            return packet
        source = self.apart[: len(packet)]
        source[:] = packet
        return source
