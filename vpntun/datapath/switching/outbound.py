"""Outbound path of Ethernet frames: the switch selects the link of each, or several (switch.py).

The frame's source is claimed for this side. The tunnel's own packets are dropped (loopguard.py). What was found out
about a frame with a TCP packet is kept for those that are like it, and the link for all frames with the same header. A
frame without a segment field is as long as the device's MTU allows: the header, VLAN tags and one packet.

The MSS of each TCP SYN is lowered (wire/ethernet/mss.py). A full frame of its connection then fits in one datagram of
an ordinary line, and so does its parity. A device with an MTU over 1500 is for longer segments: there no MSS changes.
"""

from __future__ import annotations

from collections import Counter

from vpntun.config.tunnel import DEFAULT_MTU, DEFAULT_MTU_OF_TAP
from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.device_reader import DeviceReader
from vpntun.datapath.switching.header_cache import HeaderCache, header_of
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import BadPacket
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.wire.ethernet.frame import LARGEST_HEADER, check_source, ip_at
from vpntun.wire.ethernet.mss import lower_mss
from vpntun.wire.ip import length_of
from vpntun.wire.record import LARGEST_ENTRY
from vpntun.wire.vnet import SEGMENT_SIZE, SPLIT_FIRST, segment_field_of_frame

LONGEST_OF_ORDINARY_MTU = DEFAULT_MTU_OF_TAP + LARGEST_HEADER


class FrameOutbound(DeviceReader):
    """Outbound path of a TAP device."""

    def __init__(
        self, device: Device, switch: Switch, bundler: Bundler, guard: LoopGuard, loop: Loop, drops: Counter[str]
    ) -> None:
        super().__init__(device, bundler, loop, drops)
        self._switch = switch
        self._guard = guard
        self._leaving: HeaderCache[Link] = HeaderCache()
        switch.table.empty_on_change(self.known)
        switch.table.empty_on_change(self._leaving)

    def _take(self, packet: memoryview, *, is_last: bool) -> None:
        switch, header = self._switch, self._header
        known = self._leaving.find(header_of(packet))
        if known is None:
            check_source(packet)
            switch.claim_here(packet)
        lead = ip_at(packet)
        is_watched = bool(lead and self._guard.endpoints) and self._is_watched(packet, lead)
        field = segment_field_of_frame(header, packet, lead) if header[0] or header[1] else 0
        if lead and switch.longest <= LONGEST_OF_ORDINARY_MTU:
            lower_mss(packet, lead, DEFAULT_MTU, is_unfinished=field != 0)
        if len(packet) > LARGEST_ENTRY:
            if not field & SEGMENT_SIZE:
                raise BadPacket("too large")
            field |= SPLIT_FIRST
        link = known or switch.link_for(packet, field)
        if link is None:
            switch.flood(packet, field)
            return
        is_for_all = bool(packet[0] & 1)
        if known is None and not is_for_all:
            self._leaving.keep(header_of(packet), link)
        is_typical = not is_for_all and not is_watched
        self._enter(link, packet, field, is_last=is_last, is_typical=is_typical, lead=lead)

    def _is_watched(self, frame: memoryview, lead: int) -> bool:
        """Return whether the destination of the IP packet in a frame is a peer's endpoint.

        Raises BadPacket for the tunnel's own packets.
        """
        at, size = (16, 4) if frame[lead] < 0x50 else (24, 16)
        destination = bytes(frame[lead + at : lead + at + size])
        if destination not in self._guard.endpoints:
            return False
        packet = frame[lead:]
        try:
            length_of(packet)
        except BadPacket:
            return False
        if self._guard.catches(packet, destination):
            raise BadPacket("routing loop")
        return True

    def _send(self) -> None:
        self._switch.send_all()
