"""Outbound path of Ethernet frames: the switch selects the link of each, or several (switch.py).

The frame's source is claimed for this side. The tunnel's own packets are dropped (loopguard.py). What was found out
about a frame with a TCP packet is kept for those that are like it. A frame without a segment field is as long as the
device's MTU allows: the header, VLAN tags and one packet.
"""

from __future__ import annotations

from collections import Counter

from vpntun.datapath.routing.loopguard import LoopGuard
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.device_reader import DeviceReader
from vpntun.datapath.switching.switch import Switch
from vpntun.errors import BadPacket
from vpntun.runtime.loop import Loop
from vpntun.tun.base import Device
from vpntun.wire.ethernet.frame import check_source, ip_at
from vpntun.wire.ip import destination_of, length_of
from vpntun.wire.likeness import likeness_of
from vpntun.wire.record import LARGEST_ENTRY
from vpntun.wire.vnet import GSO_NONE, SEGMENT_SIZE, SPLIT_FIRST, segment_field_of_frame


class FrameOutbound(DeviceReader):
    """Outbound path of a TAP device."""

    def __init__(
        self, device: Device, switch: Switch, bundler: Bundler, guard: LoopGuard, loop: Loop, drops: Counter[str]
    ) -> None:
        super().__init__(device, bundler, loop, drops)
        self._switch = switch
        self._guard = guard
        switch.table.empty_on_change(self.known)

    def _take(self, packet: memoryview, *, is_last: bool) -> None:
        check_source(packet)
        switch, header = self._switch, self._header
        switch.claim_here(packet)
        lead = ip_at(packet)
        is_watched = bool(lead and self._guard.endpoints) and self._is_watched(packet[lead:])
        field = segment_field_of_frame(header, packet, lead) if header[0] or header[1] else 0
        if len(packet) > LARGEST_ENTRY:
            if not field & SEGMENT_SIZE:
                raise BadPacket("too large")
            field |= SPLIT_FIRST
        link = switch.link_for(packet, field)
        if link is None:
            switch.flood(packet, field)
            return
        is_superpacket, is_for_all = header[1] != GSO_NONE, packet[0] & 1
        may_be_kept = field and not field & SPLIT_FIRST and not is_for_all and not is_watched
        if may_be_kept and is_superpacket == bool(field & SEGMENT_SIZE):
            self.known.keep(bytes(header), likeness_of(packet, field & SEGMENT_SIZE, lead=lead), (link, field))
        self.entry.enter(link, header, packet, field, is_last)

    def _is_watched(self, packet: memoryview) -> bool:
        """Return whether an IP packet's destination is a peer's endpoint. Raises BadPacket for the tunnel's own."""
        try:
            length_of(packet)
        except BadPacket:
            return False
        destination = destination_of(packet)
        if destination not in self._guard.endpoints:
            return False
        if self._guard.catches(packet, destination):
            raise BadPacket("routing loop")
        return True

    def _send(self) -> None:
        self._switch.send_all()
