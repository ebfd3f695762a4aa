"""Outbound path of IP packets: the destination of each selects its link, by the longest prefix of the allowed IPs.

A packet without a link is dropped and counted, and its sender gets an ICMP error, at a limited rate. The tunnel's own
packets are dropped too (loopguard.py). What was found out about a TCP packet is kept for those that are like it.
"""

from __future__ import annotations

from collections import Counter

from vpntun.core.bucket import TokenBucket
from vpntun.core.routes import RouteTable
from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.device_reader import DeviceReader
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.wire.icmp import UNREACHABLE, error_about, may_be_told_of
from vpntun.wire.ip import destination_of, is_multicast, length_of
from vpntun.wire.vnet import NO_OFFLOAD, segment_field_of

ERRORS_PER_SECOND, ERRORS_AT_ONCE = 10, 20
"""Limits on ICMP errors about packets without a route."""


class Outbound(DeviceReader):
    """Outbound path of a TUN device."""

    def __init__(
        self,
        device: Device,
        routes: RouteTable[Link],
        bundler: Bundler,
        guard: LoopGuard,
        loop: Loop,
        drops: Counter[str],
    ) -> None:
        super().__init__(device, bundler, loop, drops)
        self._routes = routes
        self._guard = guard
        self._errors = TokenBucket(ERRORS_PER_SECOND, ERRORS_AT_ONCE)
        routes.empty_on_change(self.known)

    def _take(self, packet: memoryview, *, is_last: bool) -> None:
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
        self._enter(link, packet, field, is_last=is_last, is_typical=not is_watched)

    def _refuse(self, packet: memoryview) -> None:
        """Drop a packet whose destination belongs to no peer, and send an ICMP error to its sender, as WireGuard does.

        The error's source is that destination. An error that the kernel made would come from this machine's own
        address. But the kernel rejects IPv4 packets from a device with this machine's address as their source. Of all
        other addresses, the destination is the one that a strict rp_filter accepts for certain, because its route leads
        to this device.
        """
        self.drops["multicast" if is_multicast(destination_of(packet)) else "no route"] += 1
        if may_be_told_of(packet) and self._errors.take(self._loop.now):
            self._device.write(NO_OFFLOAD, error_about(packet, UNREACHABLE, destination_of(packet)))
