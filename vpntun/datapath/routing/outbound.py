"""Outbound path: from the device to a link.

    1. A packet or superpacket is read directly to its place in the record (bundler.py).
    2. If it continues the run of UDP datagrams that the record ends with, it is joined to them
       (wire/udp_coalescer.py). It has the addresses and ports of the first, so nothing else is checked.
    3. If the kernel gave it the same virtio_net_hdr as a TCP packet before it, and both begin alike (wire/likeness.py),
       it goes to the same link with the same segment field.
    4. Else its destination selects the link, by the longest prefix. Without a link it is dropped and counted, and its
       sender gets an ICMP error, at a limited rate. The tunnel's own packets are dropped too (loopguard.py).
    5. If the device is read only once in this turn (core/single_read.py), the packet usually goes straight to its link.
    6. Usually it is for the same link as the packet before, and fits: only its entry is written.
    7. Else the bundler begins another record, cuts the packet, sends it plain, or lets it wait.
    8. When the device is empty, or the limit of a turn is reached, the record is sent.

In the usual case no memory is allocated for a packet.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from vpntun.core.bucket import TokenBucket
from vpntun.core.routes import RouteTable
from vpntun.core.single_read import SingleReadHint
from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.datapath.sending.bundler import Bundler
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.wire.icmp import UNREACHABLE, error_about, may_be_told_of
from vpntun.wire.ip import destination_of, is_multicast, length_of
from vpntun.wire.likeness import LikenessCache, likeness_of
from vpntun.wire.vnet import GSO_NONE, NO_OFFLOAD, SEGMENT_SIZE, SPLIT_FIRST, VNET_HEADER_SIZE, segment_field_of

MOST_BYTES_PER_TURN = 512 * 1024
MOST_PACKETS_PER_TURN = 256
ERRORS_PER_SECOND, ERRORS_AT_ONCE = 10, 20
"""Limits on ICMP errors about packets without a route."""


class Entry(Protocol):
    """What takes the packets of the device: the bundler, or the mirror in front of it (mirror.py)."""

    def place(self) -> memoryview:
        """Return the buffer for the next packet, as Bundler.place."""

    def joins(self, header: bytearray | memoryview, size: int) -> bool:
        """Join the packet at `place` to the datagrams before it, as Bundler.joins."""

    def enter(self, link: Link, header: bytearray | memoryview, packet: memoryview, field: int, is_last: bool) -> None:
        """Send the packet at `place` to a link, as Bundler.enter."""


class Outbound:
    """Outbound path of all links. `entry` takes the packets."""

    def __init__(
        self,
        device: Device,
        routes: RouteTable[Link],
        bundler: Bundler,
        guard: LoopGuard,
        loop: Loop,
        drops: Counter[str],
    ) -> None:
        self._device = device
        self._routes = routes
        self._guard = guard
        self._bundler = bundler
        self.entry: Entry = bundler
        self._loop = loop
        self._single_read = SingleReadHint()
        self._drops = drops
        self._errors = TokenBucket(ERRORS_PER_SECOND, ERRORS_AT_ONCE)
        self._header = bytearray(VNET_HEADER_SIZE)
        self._known: LikenessCache[bytes, tuple[Link, int]] = LikenessCache()
        """Link and segment field of packets with a virtio_net_hdr."""
        routes.empty_on_change(self._known)

    def read_device(self) -> None:
        """Read and send the packets that wait at the device. Raises DeviceError if it has gone."""
        bundler, entry, header, find = self._bundler, self.entry, self._header, self._known.find
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
                self._drops[bad.reason] += 1
        bundler.flush()
        if is_empty:
            bundler.drained()

    def _take(self, packet: memoryview, *, is_last: bool) -> None:
        """Find the packet's link, and enter the packet there. `is_last`: as in Bundler.enter. Raises BadPacket."""
        length_of(packet)
        destination = destination_of(packet)
        is_watched = destination in self._guard.endpoints
        if is_watched and self._guard.catches(packet, destination):
            raise BadPacket("routing loop")
        link = self._routes.find(destination)
        if link is None:
            self._refuse(packet)
            return
        header = self._header
        field = segment_field_of(header, packet) if header[0] or header[1] else 0
        is_superpacket = header[1] != GSO_NONE
        if field and not field & SPLIT_FIRST and not is_watched and is_superpacket == bool(field & SEGMENT_SIZE):
            self._known.keep(bytes(header), likeness_of(packet, field & SEGMENT_SIZE), (link, field))
        self.entry.enter(link, header, packet, field, is_last)

    def _refuse(self, packet: memoryview) -> None:
        """Drop a packet whose destination belongs to no peer, and send an ICMP error to its sender, as WireGuard does.

        The error's source is that destination. An error that the kernel made would come from this machine's own
        address. But the kernel rejects IPv4 packets from a device with this machine's address as their source. Of all
        other addresses, the destination is the one that a strict rp_filter accepts for certain, because its route leads
        to this device.
        """
        self._drops["multicast" if is_multicast(destination_of(packet)) else "no route"] += 1
        if may_be_told_of(packet) and self._errors.take(self._loop.now):
            self._device.write(NO_OFFLOAD, error_about(packet, UNREACHABLE, destination_of(packet)))
