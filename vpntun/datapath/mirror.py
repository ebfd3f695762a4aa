"""Mirror: shows observers the packets that links take and give, in front of the device and behind it.

    outbound    what the device hands over for a link, before the bundler has it, and what relay or switch forward to it
    inbound     what a link has delivered and delivery.py has checked, before relay, switch or device have it

While nobody observes, the mirror is not there: reader and distributor call the bundler, and delivery.py the relay or
the switch, as if it did not exist. The first observer puts it in between, the last one takes it out.

A packet is seen once in each direction in which it passes a link, so a forwarded one is seen twice. Superpackets are
seen whole. Packets that no link has are not seen: those without a route, and what this end tells their senders.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.datapath.receiving.delivery import Delivery, Forwarder
from vpntun.datapath.sending.bundler import Bundler
from vpntun.datapath.sending.device_reader import DeviceReader
from vpntun.datapath.sending.distributor import Distributor
from vpntun.link.link import Link
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import GSO_NONE, NEEDS_CSUM, SPLIT_FIRST, UNFINISHED


class Observer(Protocol):
    """Somebody who wants to see packets."""

    def saw(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
        """Take note of a packet, whose bytes change afterwards.

        `unfinished`: it is one packet, and its checksum is unfinished (wire/checksum.py).
        """


class Mirror:
    """Mirror of one engine."""

    def __init__(self, bundler: Bundler, distributor: Distributor, reader: DeviceReader, delivery: Delivery) -> None:
        self._bundler = bundler
        self._distributor = distributor
        self._reader = reader
        self._delivery = delivery
        self._forwarder: Forwarder | None = None
        self._observers: list[Observer] = []
        self._room = memoryview(b"")
        """Where the device was last read to."""

    def forward_through(self, forwarder: Forwarder) -> None:
        """Have delivery.py use the relay or switch, which may be made later than the mirror: somebody may observe."""
        self._forwarder = forwarder
        self._connect()

    def show(self, observer: Observer) -> None:
        """Show packets to one more observer."""
        self._observers.append(observer)
        self._connect()

    def hide(self, observer: Observer) -> None:
        """Show no more packets to an observer."""
        self._observers.remove(observer)
        self._connect()

    def _connect(self) -> None:
        """Put the mirror in between if anybody observes, and take it out otherwise."""
        self._reader.entry = self if self._observers else self._bundler
        self._delivery.forwarder = self if self._observers else self._forwarder
        self._distributor.add = self.add if self._observers else self._bundler.add

    # In front of the bundler, for the reader

    def place(self) -> memoryview:
        """Return the buffer for the next packet, as Bundler.place."""
        self._room = self._bundler.place()
        return self._room

    def joins(self, header: bytearray | memoryview, size: int) -> bool:
        """Join a packet to the datagrams before it, as Bundler.joins, which leaves only its payload."""
        link = self._bundler.link
        copy = bytes(self._room[:size]) if link is not None else b""
        joined = self._bundler.joins(header, size)
        if joined and link is not None:
            self._show(link, copy, outbound=True, unfinished=_is_unfinished(header))
        return joined

    def enter(self, link: Link, header: bytearray | memoryview, packet: memoryview, field: int, is_last: bool) -> None:
        """Enter a packet, as Bundler.enter."""
        self._show(link, packet, outbound=True, unfinished=field & ~SPLIT_FIRST == UNFINISHED)
        self._bundler.enter(link, header, packet, field, is_last)

    # In front of the bundler, for the distributor

    def add(self, packet: memoryview, field: int) -> None:
        """Send a packet to the selected link, as Bundler.add."""
        if self._bundler.link is not None:
            self._show(self._bundler.link, packet, outbound=True, unfinished=field == UNFINISHED)
        self._bundler.add(packet, field)

    # In front of the relay or switch, for delivery.py

    def take(self, link: Link, header: Buffer, packet: memoryview) -> bool:
        """Forward a packet, as Forwarder.take."""
        self._show(link, packet, outbound=False, unfinished=_is_unfinished(header))
        return self._forwarder is not None and self._forwarder.take(link, header, packet)

    def flush(self) -> None:
        """Send the forwarded packets."""
        if self._forwarder is not None:
            self._forwarder.flush()

    def discard(self) -> None:
        """Drop the packets that wait to be forwarded."""
        if self._forwarder is not None:
            self._forwarder.discard()

    def _show(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
        for observer in tuple(self._observers):
            observer.saw(link, packet, outbound=outbound, unfinished=unfinished)


def _is_unfinished(header: Buffer) -> bool:
    return bool(header[0] & NEEDS_CSUM) and header[1] == GSO_NONE
