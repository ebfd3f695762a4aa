"""Outbound: from the device to a link.

    1. read a packet or superpacket straight to its place in the record (bundler.py), as long as there are some
    2. its destination chooses the link, by the longest prefix; none: dropped and counted, and its sender is told by
       ICMP, at a bounded rate. The tunnel's own packets are dropped too (loopguard.py)
    3. one more datagram of the run that the record ends with joins it (wire/udp_coalescer.py); its addresses and ports
       are those of the first, so it is not looked at again
    4. in the common case it goes to the same link as the last, and fits: it is entered, and that is all
    5. else the bundler finds out: another record, smaller pieces, plain packets, or it waits
    6. the device is drained, or this turn long enough: what is there leaves

Nothing is allocated for a packet in the common case.
"""

from __future__ import annotations

from collections import Counter

from vpntun.core.bucket import TokenBucket
from vpntun.core.routes import RouteTable
from vpntun.datapath.bundler import Bundler
from vpntun.datapath.link import Link
from vpntun.datapath.loopguard import LoopGuard
from vpntun.errors import BadPacket
from vpntun.runtime.loop import Loop
from vpntun.runtime.single_read import SingleReadHint
from vpntun.tun.base import Device
from vpntun.wire.icmp import UNREACHABLE, error_about, may_be_told_of
from vpntun.wire.ip import destination_of, length_of
from vpntun.wire.vnet import NO_OFFLOAD, VNET_HEADER_SIZE

MOST_BYTES_PER_TURN = 512 * 1024
MOST_PACKETS_PER_TURN = 256
ERRORS_PER_SECOND, ERRORS_AT_ONCE = 10, 20
"""Of ICMP, to one that cannot be helped."""


class Outbound:
    """The way out, for all links."""

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
        self._loop = loop
        self._single_read = SingleReadHint()
        self._drops = drops
        self._errors = TokenBucket(ERRORS_PER_SECOND, ERRORS_AT_ONCE)
        self._header = memoryview(bytearray(VNET_HEADER_SIZE))

    def read_device(self) -> None:
        """Take in what waits at the device. Raises DeviceError when it has gone."""
        bundler, header, read_into, find = self._bundler, self._header, self._device.read_into, self._routes.find
        place, joins, enter, endpoints = bundler.place, bundler.joins, bundler.enter, self._guard.endpoints
        taken = 0
        single = self._single_read.expected(self._loop.turns)
        for number in range(1 if single else MOST_PACKETS_PER_TURN):
            if taken > MOST_BYTES_PER_TURN:
                break
            room = place()
            size = read_into(header, room)
            if size <= 0:
                bundler.drained()
                self._single_read.drained(number)
                break
            taken += size
            if joins(header, size):
                continue
            packet = room[:size]
            try:
                length_of(packet)
                destination = destination_of(packet)
                if destination in endpoints and self._guard.catches(packet, destination):
                    self._drops["routing loop"] += 1
                    continue
                link = find(destination)
                if link is None:
                    self._refuse(packet)
                else:
                    enter(link, header, packet)
            except BadPacket as bad:
                self._drops[bad.reason] += 1
        if single:
            bundler.drained()
        bundler.flush()

    def _refuse(self, packet: memoryview) -> None:
        """Nobody is behind its destination: say so, as WireGuard does.

        The error comes from that destination. It would be this machine's own address, had the kernel made it; but from
        a device the kernel takes no IPv4 packet that has this machine's address for its source, and of all others a
        strict rp_filter passes that one for certain: its route leads to this device.
        """
        self._drops["no route"] += 1
        if may_be_told_of(packet) and self._errors.take(self._loop.now):
            self._device.write(NO_OFFLOAD, error_about(packet, UNREACHABLE, destination_of(packet)))
