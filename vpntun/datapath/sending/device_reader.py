"""Reader of the device: each packet or superpacket is read to its place in a record, and enters it for its link.

    1. A packet is read directly to its place in the record (bundler.py).
    2. If it continues the run of UDP datagrams that the record ends with, it is joined to them
       (wire/udp_coalescer.py). It has the addresses and ports of the first, so nothing else is checked.
    3. If the kernel gave it the same virtio_net_hdr as a TCP packet before it, and both begin alike (wire/likeness.py),
       it goes to the same link with the same segment field.
    4. Else its link is looked up: by its IP destination (datapath/routing/outbound.py), or by the destination of its
       Ethernet frame (datapath/switching/outbound.py).
    5. If the device is read only once in this turn (core/single_read.py), the packet usually goes straight to its link.
    6. Usually it is for the same link as the packet before, and fits: only its entry is written.
    7. Else the bundler begins another record, cuts the packet, sends it plain, or lets it wait.
    8. When the device is empty, or the limit of a turn is reached, the record is sent.

In the usual case no memory is allocated for a packet.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from typing import Protocol

from vpntun.core.single_read import SingleReadHint
from vpntun.datapath.sending.bundler import Bundler
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.wire.likeness import LikenessCache, likeness_of
from vpntun.wire.vnet import GSO_NONE, SEGMENT_SIZE, SPLIT_FIRST, VNET_HEADER_SIZE

MOST_BYTES_PER_TURN = 512 * 1024
MOST_PACKETS_PER_TURN = 256


class Entry(Protocol):
    """What takes the packets of the device: the bundler, or the mirror in front of it (mirror.py)."""

    def place(self) -> memoryview:
        """Return the buffer for the next packet, as Bundler.place."""

    def joins(self, header: bytearray | memoryview, size: int) -> bool:
        """Join the packet at `place` to the datagrams before it, as Bundler.joins."""

    def enter(self, link: Link, header: bytearray | memoryview, packet: memoryview, field: int, is_last: bool) -> None:
        """Send the packet at `place` to a link, as Bundler.enter."""


class DeviceReader(ABC):
    """Reader of one device, for all links.

    entry     takes the packets
    known     link and segment field of packets with a virtio_net_hdr; to be emptied whenever they may change
    drops     counter of drops, by reason
    """

    def __init__(self, device: Device, bundler: Bundler, loop: Loop, drops: Counter[str]) -> None:
        self._device = device
        self._bundler = bundler
        self._loop = loop
        self._single_read = SingleReadHint()
        self._header = bytearray(VNET_HEADER_SIZE)
        self.drops = drops
        self.entry: Entry = bundler
        self.known: LikenessCache[bytes, tuple[Link, int]] = LikenessCache()

    def read_device(self) -> None:
        """Read and send the packets that wait at the device. Raises DeviceError if it has gone."""
        bundler, entry, header, find = self._bundler, self.entry, self._header, self.known.find
        place, read_into, joins, enter = entry.place, self._device.read_into, entry.joins, entry.enter
        taken = 0
        is_empty = single = self._single_read.expected(self._loop.turns)
        for number in range(1 if single else MOST_PACKETS_PER_TURN):
            if taken > MOST_BYTES_PER_TURN:
                break
            room = place()
            size = read_into(header, room)
            if size <= 0:
                is_empty = True
                self._single_read.drained(number)
                break
            taken += size
            if joins(header, size):
                continue
            packet = room[:size]
            try:
                if (known := find(bytes(header), packet)) is not None:
                    enter(known[0], header, packet, known[1], single)
                else:
                    self._take(packet, is_last=single)
            except BadPacket as bad:
                self.drops[bad.reason] += 1
        self._send()
        if is_empty:
            bundler.drained()

    @abstractmethod
    def _take(self, packet: memoryview, *, is_last: bool) -> None:
        """Find the packet's link, and enter the packet there. `is_last`: as in Bundler.enter. Raises BadPacket."""

    def _enter(
        self, link: Link, packet: memoryview, field: int, *, is_last: bool, is_typical: bool, lead: int = 0
    ) -> None:
        """Enter a packet for its link. `is_typical`: packets that are like it go there, too.

        `field`: its segment field. `lead`: bytes before its IP header. `is_last`: as in Bundler.enter.
        """
        header = self._header
        is_superpacket = header[1] != GSO_NONE
        if is_typical and field and not field & SPLIT_FIRST and is_superpacket == bool(field & SEGMENT_SIZE):
            self.known.keep(bytes(header), likeness_of(packet, field & SEGMENT_SIZE, lead=lead), (link, field))
        self.entry.enter(link, header, packet, field, is_last)

    def _send(self) -> None:
        """Send what has been entered."""
        self._bundler.flush()
