"""Relay: what one peer sends to another's allowed IPs is handed across, here in the process (`Relay = yes`).

    across      one off its TTL or hop limit, and to the other link as if it came from the device. A superpacket crosses
                whole, and is cut or split as the other link needs it (bundler.py); where that link has to wait, it
                waits in that link's queue
    back        as a router would, also to the link that it came from: no packet goes round for ever
    refused     its TTL is used up, or it is longer than the device's MTU and no router may cut it: dropped, and its
                sender is told by ICMP, at a bounded rate for each peer. What may be cut crosses whole
    not ours    to this machine's own address, to one that no router passes on (multicast, broadcast, loopback,
                link-local), or to nobody's allowed IP: to the device, where the host decides, as it does with
                everything without Relay

Its length and its source, by the allowed IPs, have been checked by delivery.py. The host's forwarding and firewall see
nothing of what crosses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from vpntun.core.bucket import TokenBucket
from vpntun.core.routes import RouteTable
from vpntun.datapath.bundler import Bundler
from vpntun.datapath.link import Link
from vpntun.errors import BadPacket
from vpntun.netconf.addresses import OwnAddresses
from vpntun.wire.icmp import TIME_EXCEEDED, TOO_BIG, IcmpError, error_about, may_be_told_of
from vpntun.wire.ip import destination_of, hops_left, is_link_local, is_one_host, source_of, take_hop
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import NEEDS_CSUM, UNFINISHED, VNET_HEADER

ERRORS_PER_SECOND, ERRORS_AT_ONCE = 10, 20
"""Of ICMP, to each peer."""

_DF = 0x40


class Relay:
    """Between all links of one device, whose `mtu` is in bytes."""

    def __init__(
        self,
        mtu: int,
        routes: RouteTable[Link],
        bundler: Bundler,
        own: OwnAddresses,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mtu = mtu
        self._routes = routes
        self._bundler = bundler
        self._own = own
        self._clock = clock
        self._errors: WeakKeyDictionary[Link, TokenBucket] = WeakKeyDictionary()
        self._aside: dict[Link, list[tuple[bytes, int]]] = {}
        """What crosses to other links than the one that the bundler builds a record for: their records come later."""

    def take(self, header: Buffer, packet: memoryview) -> bool:
        """Whether a packet was the relay's to deal with; what crosses leaves with `flush` at the latest.

        `header`: its virtio_net_hdr, made by this end. `packet` is changed.
        """
        destination = destination_of(packet)
        link = self._routes.find(destination)
        if link is None or not self._crosses(destination):
            return False
        flags, _, headers, size, _, _ = VNET_HEADER.unpack_from(header)
        if hops_left(packet) <= 1:
            self._refuse(packet, TIME_EXCEEDED, "hop limit exceeded")
        elif self._is_too_big(packet, headers + size if size else len(packet)):
            self._refuse(packet, TOO_BIG, "too big for the device")
        else:
            take_hop(packet)
            self._send(link, packet, UNFINISHED | size if flags & NEEDS_CSUM else 0)
        return True

    def flush(self) -> None:
        """No more is at hand: send what is there, link by link."""
        self._bundler.flush()
        while self._aside:
            link, packets = self._aside.popitem()
            for packet, field in packets:
                self._enter(link, memoryview(packet), field)
            self._bundler.flush()
        self._bundler.drained()

    def discard(self) -> None:
        """Drop what waits to cross: an error has interrupted it."""
        self._aside.clear()

    def _crosses(self, destination: bytes) -> bool:
        return is_one_host(destination) and not is_link_local(destination) and destination not in self._own

    def _is_too_big(self, packet: memoryview, largest: int) -> bool:
        """`largest`: the bytes of the packet, or of the largest that a superpacket is made of."""
        return largest > self._mtu and (packet[0] >= 0x50 or bool(packet[6] & _DF))

    def _send(self, link: Link, packet: memoryview, field: int) -> None:
        """Enter the packet in the link's record, or put it aside while another link's is built.

        So packets to several links by turns cost a record for each link, and not one for each packet.
        """
        if self._bundler.link is link or (self._bundler.link is None and link not in self._aside):
            self._enter(link, packet, field)
        else:
            self._aside.setdefault(link, []).append((bytes(packet), field))

    def _enter(self, link: Link, packet: memoryview, field: int) -> None:
        bundler = self._bundler
        bundler.note_more(link)  # a record that left before this packet was filled by what is at hand
        try:
            if bundler.link is not link:
                bundler.turn_to(link)
            bundler.add(packet, field)
        except BadPacket as bad:
            link.drops[bad.reason] += 1

    def _refuse(self, packet: memoryview, error: IcmpError, reason: str) -> None:
        """Drop it, and tell its sender: from this end's address in the tunnel, without one from its destination."""
        sender = self._routes.find(source_of(packet))
        if sender is None:
            return
        sender.drops[reason] += 1
        if may_be_told_of(packet) and self._errors_to(sender).take(self._clock()):
            destination = destination_of(packet)
            source = self._own.of_device(len(destination)) or destination
            told = error_about(packet, error, source, self._mtu if error is TOO_BIG else 0)
            self._send(sender, memoryview(told), 0)

    def _errors_to(self, link: Link) -> TokenBucket:
        bucket = self._errors.get(link)
        if bucket is None:
            bucket = self._errors[link] = TokenBucket(ERRORS_PER_SECOND, ERRORS_AT_ONCE)
        return bucket
