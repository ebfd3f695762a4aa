"""Recording of one capture: packets become pcapng, which waits in a bounded buffer until somebody takes it.

a packet that finds no room is lost: it is counted, and so is told in the next one's block and in the statistics
an unfinished checksum is finished in the copy, unless the packet was cut, or is a superpacket: that one never
travels as it is, so no checksum would be right
bounds of packets, of bytes and of time end the recording. The statistics belong to its bytes
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vpntun import __version__
from vpntun.capture import pcapng
from vpntun.capture.selection import Selection
from vpntun.crypto.keys import format_key, shortened
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.types import NEVER, DeviceKind
from vpntun.wire.checksum import TCP, UDP_CHECKSUM, finish_transport
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.ip import length_of
from vpntun.wire.message import Buffer
from vpntun.wire.transport_header import TCP_CHECKSUM, shape_of

MOST_WAITING = 4 << 20
"""Bytes of a recording that wait to be taken."""
LARGEST_PIECE = 64 * 1024
WHOLE_PACKETS = 65535
DESCRIBED_AT_ONCE = 16
"""Peers that are in the capture from its start. Others get there by their first packet."""


@dataclass(frozen=True)
class Bounds:
    """Where a recording ends: after so many packets, before its bytes would be more. `snaplen`: bytes of a packet."""

    packets: float = NEVER
    bytes: float = NEVER
    snaplen: int = WHOLE_PACKETS


@dataclass
class _Source:
    """One peer's interface in the capture. `number` is None until its block was written."""

    block: bytes
    number: int | None = None
    seen: int = 0
    lost: int = 0
    lost_lately: int = 0


class Recording:
    """One capture of the tunnel `interface`, whose device carries what `kind` says.

    `on_end` is called once. `clock`: nanoseconds since 1970.
    """

    def __init__(
        self,
        interface: str,
        links: Iterable[Link],
        selection: Selection,
        bounds: Bounds,
        on_end: Callable[[Recording], None],
        clock: Callable[[], int] = time.time_ns,
        kind: DeviceKind = "tun",
    ) -> None:
        self.ended = False
        self._interface = interface
        self._is_of_frames = kind == "tap"
        self._selection = selection
        self._takes = selection.takes_frame if self._is_of_frames else selection.takes
        self._bounds = bounds
        self._on_end = on_end
        self._on_more: Callable[[], None] = _do_nothing
        self._clock = clock
        self._began = clock()
        self._sources: dict[Link, _Source | None] = {}
        self._described: list[_Source] = []
        self._packets = 0
        self._pieces: deque[bytes] = deque((pcapng.section(f"vpntun {__version__}"),))
        self._waiting = self._written = len(self._pieces[0])
        for link in links:
            if len(self._described) == DESCRIBED_AT_ONCE:
                break
            if (source := self._source_of(link)) is not None and self._fits(source, len(source.block)):
                self._append(self._describe(source))

    def saw(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
        """Record a packet, if it is selected. `unfinished`: it is one packet, and its checksum is unfinished."""
        source = self._sources[link] if link in self._sources else self._source_of(link)
        if source is None or self.ended or not self._takes(packet):
            return
        copy = packet[: self._bounds.snaplen]
        if self._waiting + len(copy) + pcapng.MOST_AROUND_A_PACKET + len(source.block) > MOST_WAITING:
            source.seen += 1
            source.lost += 1
            source.lost_lately += 1
            return
        if unfinished and len(copy) == len(packet):
            copy = _finished(copy, ip_at(copy) if self._is_of_frames else 0)
        blocks = self._blocks(source, copy, len(packet), pcapng.OUTBOUND if outbound else pcapng.INBOUND)
        if self._fits(source, sum(map(len, blocks))):
            source.seen += 1
            self._keep(source, blocks)
        else:
            self.end()

    def take(self) -> bytes:
        """Return the next bytes, or b"" while there are none."""
        pieces, taken, size = self._pieces, [], 0
        while pieces and size < LARGEST_PIECE:
            taken.append(pieces.popleft())
            size += len(taken[-1])
        self._waiting -= size
        return b"".join(taken)

    def call_on_more(self, callback: Callable[[], None]) -> None:
        """Call back whenever there are bytes to take again, and when the recording ends."""
        self._on_more = callback

    def end(self) -> None:
        """Stop recording, and write the statistics. Does nothing once it has ended."""
        if self.ended:
            return
        self.ended = True
        for source in self._sources.values():
            if source is not None and source.number is None and source.lost and self._fits(source, len(source.block)):
                self._append(self._describe(source))
        now = self._clock()
        for number, source in enumerate(self._described):
            self._append(pcapng.statistics(number, self._began, now, source.seen, source.lost))
        self._on_end(self)
        self._on_more()

    def _source_of(self, link: Link) -> _Source | None:
        """Return a link's interface in the capture, which may be new; None if its peer is not selected."""
        source = None
        if self._selection.takes_peer(link.peer.public):
            key = format_key(link.peer.public)
            name = link.name or f"peer {shortened(key)}"
            description = f"{self._interface}: peer {key}"
            link_type = pcapng.LINKTYPE_ETHERNET if self._is_of_frames else pcapng.LINKTYPE_RAW
            source = _Source(pcapng.interface(name, description, self._bounds.snaplen, link_type))
        self._sources[link] = source
        return source

    def _describe(self, source: _Source) -> bytes:
        """Give an interface its number, and return its block, which has to be written next."""
        source.number = len(self._described)
        self._described.append(source)
        return source.block

    def _blocks(self, source: _Source, data: Buffer, length: int, direction: int) -> list[bytes]:
        """Return the block of a packet, behind that of its interface if this was not written yet."""
        number = len(self._described) if source.number is None else source.number
        block = pcapng.packet(number, self._clock(), data, length, direction, source.lost_lately)
        return [block] if source.number is not None else [source.block, block]

    def _keep(self, source: _Source, blocks: list[bytes]) -> None:
        was_empty = not self._pieces
        if source.number is None:
            self._describe(source)
        for block in blocks:
            self._append(block)
        source.lost_lately = 0
        self._packets += 1
        if self._packets >= self._bounds.packets:
            self.end()
        elif was_empty:
            self._on_more()

    def _append(self, block: bytes) -> None:
        self._pieces.append(block)
        self._waiting += len(block)
        self._written += len(block)

    def _fits(self, source: _Source, size: int) -> bool:
        """Return whether `size` more bytes about a source are allowed, with the statistics at the end."""
        end = (len(self._described) + (source.number is None)) * pcapng.SIZE_OF_STATISTICS
        return self._written + size + end <= self._bounds.bytes


def _do_nothing() -> None:
    pass


def _finished(packet: Buffer, lead: int) -> Buffer:
    """Return a copy of a TCP or UDP packet with its checksum finished, or the packet itself if it is neither.

    `lead`: bytes of the Ethernet header before the IP packet.
    """
    copy = bytearray(packet)
    inside = memoryview(copy)[lead:]
    try:
        inside = inside[: length_of(inside)]
        protocol, start, _ = shape_of(inside, len(inside))
    except BadPacket:
        return packet
    finish_transport(inside, start, TCP_CHECKSUM if protocol == TCP else UDP_CHECKSUM)
    return copy
