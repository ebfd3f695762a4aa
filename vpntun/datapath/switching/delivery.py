"""Delivery of Ethernet frames from links to the device, or by the switch to other links (switch.py).

    source        one station, whose address the link may have
    length        at most the device's MTU, its header and two VLAN tags, unless it is a superpacket
    superpacket   an IP packet, as on a TUN device, behind the frame's header

What is inside a frame without a segment field is not checked: it may be of any protocol. Router messages pass.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from vpntun.datapath.receiving.delivery import Delivery
from vpntun.datapath.switching.header_cache import header_of
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.tun.base import Device
from vpntun.wire.ethernet.frame import HEADER_SIZE, check_source, ip_at
from vpntun.wire.ip import decapsulate, length_of
from vpntun.wire.record import FRAMES
from vpntun.wire.vnet import NO_OFFLOAD, SEGMENT_SIZE, ends_with_ip


class FrameDelivery(Delivery):
    """Writer of all links' frames to a TAP device."""

    def __init__(self, device: Device, switch: Switch, drops: Counter[str]) -> None:
        super().__init__(device, FRAMES, drops)
        self._switch = switch
        switch.table.empty_on_change(self.known)

    def take_packet(self, link: Link, packet: memoryview, ecn: int = 0) -> None:
        """Refuse an IP packet, as Delivery.take_packet: it has no Ethernet header."""
        raise BadPacket("other kind of device")

    def _take(self, link: Link, packet: memoryview, field: int) -> None:
        switch = self._switch
        known = switch.arriving.find(header_of(packet))
        is_known = known is not None and known[0] is link
        if not is_known:
            check_source(packet)
        if not field & SEGMENT_SIZE and len(packet) > switch.longest:
            raise BadPacket("too big for the device")
        if not is_known:
            switch.claim(link, packet)
        lead = ip_at(packet)
        if lead and ends_with_ip(packet, lead):
            self._deliver(link, packet, len(packet), field, lead)
        elif not field:
            self._flush_joined()
            self._write(link, NO_OFFLOAD, packet)
        else:
            raise BadPacket("bad superpacket length" if lead else "bad segment field")

    def _mark(self, packet: memoryview, ecn: int) -> None:
        if len(packet) > HEADER_SIZE and ip_at(packet) == HEADER_SIZE:
            inside = packet[HEADER_SIZE:]
            with suppress(BadPacket):
                length_of(inside)
                decapsulate(inside, ecn)
