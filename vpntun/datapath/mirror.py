"""Mirror: shows observers the packets that links take and give, in front of the device and behind it.

    outbound    what the device hands over for a link, before the bundler has it, and what the relay forwards to a link
    inbound     what a link has delivered and delivery.py has checked, before the relay or the device has it

While nobody observes, the mirror is not there: outbound.py and relay.py call the bundler, and delivery.py the relay, as
if it did not exist. The first observer puts it in between, the last one takes it out.

A packet is seen once in each direction in which it passes a link, so a relayed one is seen twice. Superpackets are seen
whole. Packets that no link has are not seen: those without a route, and what this end tells their senders.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.core.routes import RouteTable
from vpntun.datapath.routing.delivery import Delivery
from vpntun.datapath.routing.outbound import Outbound
from vpntun.datapath.routing.relay import Relay
from vpntun.datapath.sending.bundler import Bundler
from vpntun.link.link import Link
from vpntun.wire.ip import source_of
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

    def __init__(self, routes: RouteTable[Link], bundler: Bundler, outbound: Outbound, delivery: Delivery) -> None:
        self._routes = routes
        self._bundler = bundler
        self._outbound = outbound
        self._delivery = delivery
        self._relay: Relay | None = None
        self._observers: list[Observer] = []
        self._room = memoryview(b"")
        """Where the device was last read to."""

    def relay_through(self, relay: Relay) -> None:
        """Have delivery.py use the relay, which is made later than the mirror: somebody may observe already."""
        self._relay = relay
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
        self._outbound.entry = self if self._observers else self._bundler
        self._delivery.relay = self if self._observers else self._relay
        if self._relay is not None:
            self._relay.add = self.add if self._observers else self._bundler.add

    # In front of the bundler, for outbound.py

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

    # In front of the bundler, for relay.py

    def add(self, packet: memoryview, field: int) -> None:
        """Send a packet to the selected link, as Bundler.add."""
        if self._bundler.link is not None:
            self._show(self._bundler.link, packet, outbound=True, unfinished=field == UNFINISHED)
        self._bundler.add(packet, field)

    # In front of the relay, for delivery.py

    def take(self, header: Buffer, packet: memoryview) -> bool:
        """Relay a packet, as Relay.take. Its source address is its link's: delivery.py has checked that."""
        link = self._routes.find(source_of(packet))
        if link is not None:
            self._show(link, packet, outbound=False, unfinished=_is_unfinished(header))
        return self._relay is not None and self._relay.take(header, packet)

    def flush(self) -> None:
        """Send the forwarded packets."""
        if self._relay is not None:
            self._relay.flush()

    def discard(self) -> None:
        """Drop the packets that wait to be forwarded."""
        if self._relay is not None:
            self._relay.discard()

    def _show(self, link: Link, packet: Buffer, *, outbound: bool, unfinished: bool) -> None:
        for observer in tuple(self._observers):
            observer.saw(link, packet, outbound=outbound, unfinished=unfinished)


def _is_unfinished(header: Buffer) -> bool:
    return bool(header[0] & NEEDS_CSUM) and header[1] == GSO_NONE
