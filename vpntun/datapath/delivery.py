"""Delivery: what a data message carried, to the device, or with Relay to another link (relay.py).

    empty     a keepalive, done before
    record    BUNDLE: each of its packets; PARITY: those of the BUNDLE that it restores; others: to the conversation
    packet    one IP packet, as WireGuard sends it; consecutive segments of a flow are joined (wire/gro_coalescer.py)

Every packet is parsed here before the device sees it: its version and length, padding off, its source must lead back
to the link. A superpacket gets a fresh virtio_net_hdr, made from the packet; the peer's is never passed on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from vpntun.carriers.base import Path
from vpntun.core.routes import RouteTable
from vpntun.crypto.session import Session
from vpntun.datapath.link import Link
from vpntun.datapath.relay import Relay
from vpntun.errors import BadPacket
from vpntun.tun.device import TunDevice
from vpntun.wire.gro_coalescer import GroCoalescer
from vpntun.wire.ip import length_of, source_of
from vpntun.wire.record import BUNDLE, BUNDLE_START, ENTRY, ENTRY_SIZE, LAST_KIND, PARITY, packets_of
from vpntun.wire.vnet import NO_OFFLOAD, UNFINISHED, VNET_HEADER_SIZE, header_for

SHORTEST_JOINED = 88
"""Bytes: to join shorter packets would cost more than it saves; most of them are acknowledgements."""
_ONE_PACKET = BUNDLE_START + ENTRY_SIZE
"""Where the packet of a bundle that holds no other begins."""


class Delivery:
    """Writes what links bring to the one device. Raises DeviceError when it has gone.

    `on_bad` is told of each packet of a bundle that is dropped: it harms no other. `relay`: None without Relay.
    """

    def __init__(
        self, device: TunDevice, routes: RouteTable[Link], drops: Counter[str], relay: Relay | None = None
    ) -> None:
        self._device = device
        self._routes = routes
        self._drops = drops
        self._relay = relay
        self.on_bad: Callable[[Link, BadPacket, Path], None] = lambda link, bad, source: None
        self._header = memoryview(bytearray(VNET_HEADER_SIZE))
        self._joined_link: Link | None = None
        """Whose packets wait to be joined: no other link's may join them, nor a look at its source be spared."""
        self._coalescer = GroCoalescer(self._write_joined, udp=device.takes_udp) if device.takes_tcp else None

    def take(self, link: Link, session: Session, plaintext: memoryview, source: Path) -> bool:
        """Deliver one plaintext, which is not empty; whether it carried packets. Raises BadPacket."""
        kind = plaintext[0]
        if kind == BUNDLE:
            self.take_bundle(link, plaintext, source)
            return True
        if kind == PARITY:
            restored = link.records.restore(session, plaintext, link.now)
            if restored is not None:
                writable = memoryview(bytearray(restored))  # a relay changes packets in place
                self.take_bundle(link, writable, source)
            return False
        if 0 < kind <= LAST_KIND:
            link.act(link.records.received(session, plaintext, source, link.time))
            return False
        length = length_of(plaintext)
        if self._routes.find(source_of(plaintext)) is not link:
            raise BadPacket("source not allowed")
        if self._coalescer is not None:
            if link is not self._joined_link:
                self._flush_joined()
                self._joined_link = link
            self._coalescer.add(plaintext, length)
        else:
            self._write(NO_OFFLOAD, plaintext[:length])
        return True

    def flush(self) -> None:
        """No more is at hand: write what waited to be joined, send what is relayed."""
        self._flush_joined()
        if self._relay is not None:
            self._relay.flush()

    def discard(self) -> None:
        """Drop what waits to be joined or to cross: an error has interrupted it."""
        if self._coalescer is not None:
            self._coalescer.discard()
        if self._relay is not None:
            self._relay.discard()

    def _flush_joined(self) -> None:
        if self._coalescer is not None and self._coalescer.length:
            self._coalescer.flush()

    def take_bundle(self, link: Link, record: memoryview, source: Path) -> None:
        """Deliver the packets of a BUNDLE. Raises BadPacket."""
        coalescer, find = self._coalescer, self._routes.find
        if coalescer is None or link is not self._joined_link:
            self._flush_joined()
        elif len(record) > _ONE_PACKET:
            length, field = ENTRY.unpack_from(record, BUNDLE_START)
            is_alone = length == len(record) - _ONE_PACKET and not field & ~UNFINISHED
            if is_alone and coalescer.extend(record[_ONE_PACKET:], length, finished=not field):
                return
        for packet, field in packets_of(record):
            try:
                length = length_of(packet)
                if find(source_of(packet)) is not link:
                    raise BadPacket("source not allowed")
                if coalescer is not None and length >= SHORTEST_JOINED and not field & ~UNFINISHED:
                    self._joined_link = link
                    coalescer.add(packet, length, finished=not field)
                    continue
                self._flush_joined()  # what came before goes before
                if field:
                    header_for(packet, length, field, self._header)
                    self._write(self._header, packet)
                else:
                    self._write(NO_OFFLOAD, packet[:length])
            except BadPacket as bad:
                self.on_bad(link, bad, source)

    def _write(self, header: memoryview | bytes, packet: memoryview) -> None:
        if self._relay is not None and self._relay.take(header, packet):
            return
        if not self._device.write(header, packet):
            self._drops["refused by the device"] += 1

    def _write_joined(self, packet: memoryview) -> None:
        self._write(packet[:VNET_HEADER_SIZE], packet[VNET_HEADER_SIZE:])
