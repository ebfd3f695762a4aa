"""Delivery of IP packets from links to the device, or with Relay to another link (relay.py).

The packet's version and length must be right, its padding is removed, its source address must belong to the link, and
router messages are dropped (wire/router_messages.py).
"""

from __future__ import annotations

from collections import Counter

from vpntun.core.routes import RouteTable
from vpntun.datapath.receiving.delivery import Delivery
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.tun.base import Device
from vpntun.wire.ip import CHANGES_INNER, decapsulate, length_of, source_of
from vpntun.wire.record import BUNDLE
from vpntun.wire.router_messages import MAY_BE_ROUTER_MESSAGE, refuse_router_message
from vpntun.wire.vnet import NO_OFFLOAD


class PacketDelivery(Delivery):
    """Writer of all links' IP packets to a TUN device."""

    def __init__(self, device: Device, routes: RouteTable[Link], drops: Counter[str]) -> None:
        super().__init__(device, BUNDLE, drops)
        self._routes = routes
        routes.empty_on_change(self.known)

    def take_packet(self, link: Link, packet: memoryview, ecn: int = 0) -> None:
        """Deliver one packet, as Delivery.take_packet: consecutive segments of a flow are joined."""
        length = length_of(packet)
        if ecn & CHANGES_INNER:
            decapsulate(packet, ecn)
        self._check(link, packet, length)
        if self._coalescer is not None:
            if link is not self._joined_link:
                self._flush_joined()
                self._joined_link = link
            self._coalescer.add(packet, length)
        else:
            self._write(link, NO_OFFLOAD, packet[:length])

    def _take(self, link: Link, packet: memoryview, field: int) -> None:
        length = length_of(packet)
        self._check(link, packet, length)
        self._deliver(link, packet, length, field)

    def _mark(self, packet: memoryview, ecn: int) -> None:
        decapsulate(packet, ecn)

    def _check(self, link: Link, packet: memoryview, length: int) -> None:
        """Raise BadPacket for a source address that is not the link's, and for router messages."""
        if self._routes.find(source_of(packet)) is not link:
            raise BadPacket("source not allowed")
        if packet[9 if packet[0] < 0x50 else 6] in MAY_BE_ROUTER_MESSAGE:
            refuse_router_message(packet, length)
