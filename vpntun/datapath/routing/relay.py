"""Relay (`Relay = yes`): forwards packets between peers inside the process, by their allowed IPs.

    forwarded     Its TTL or hop limit is reduced by one, and it is sent to the other link as if it came from the
                  device. A superpacket is forwarded whole, and cut or split as the other link needs it (bundler.py). If
                  that link cannot send now, the packet waits in that link's queue. As at a router, the other link may
                  be the one that the packet came from; the TTL ends such loops.
    dropped       Its TTL is used up, or it is longer than the device's MTU and must not be fragmented. Its sender gets
                  an ICMP error, at a limited rate for each peer. A packet that may be fragmented is forwarded whole.
    left alone    Its destination is this machine's own address, an address that no router forwards to (multicast,
                  broadcast, loopback, link-local), or in no peer's allowed IPs. It is written to the device, and the
                  host decides, as it does about every packet without Relay.

delivery.py has already checked the packet's length, and its source against the allowed IPs. The host's forwarding and
firewall do not see forwarded packets.
"""

from __future__ import annotations

from collections.abc import Callable

from vpntun.core.bucket import TokenBuckets
from vpntun.core.routes import RouteTable
from vpntun.datapath.sending.distributor import Distributor
from vpntun.link.link import Link
from vpntun.netconf.localnets import OwnAddresses
from vpntun.runtime.clock import boottime
from vpntun.wire.icmp import TIME_EXCEEDED, TOO_BIG, IcmpError, error_about, may_be_told_of
from vpntun.wire.ip import destination_of, hops_left, is_link_local, is_one_host, take_hop
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import NEEDS_CSUM, UNFINISHED, VNET_HEADER

ERRORS_PER_SECOND, ERRORS_AT_ONCE = 10, 20
"""Limits on ICMP errors to each peer."""

_DF = 0x40


class Relay:
    """Relay between all links of one device. `own`: this machine's addresses."""

    def __init__(
        self,
        mtu: int,
        routes: RouteTable[Link],
        distributor: Distributor,
        own: OwnAddresses,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._mtu = mtu
        self._routes = routes
        self._send = distributor.send
        self.flush = distributor.flush
        self.discard = distributor.discard
        self._own = own
        self._clock = clock
        self._errors: TokenBuckets[Link] = TokenBuckets(ERRORS_PER_SECOND, ERRORS_AT_ONCE)

    def follow_mtu(self, mtu: int) -> None:
        """Forward no packets longer than another MTU of the device, in bytes."""
        self._mtu = mtu

    def take(self, sender: Link, header: Buffer, packet: memoryview) -> bool:
        """Forward or drop a packet of a link, as Forwarder.take. Forwarded ones are sent at the next `flush` at latest.

        `packet` is modified.
        """
        destination = destination_of(packet)
        link = self._routes.find(destination)
        if link is None or not self._may_forward_to(destination):
            return False
        flags, _, headers, size, _, _ = VNET_HEADER.unpack_from(header)
        if hops_left(packet) <= 1:
            self._refuse(sender, packet, TIME_EXCEEDED, "hop limit exceeded")
        elif self._is_too_big(packet, headers + size if size else len(packet)):
            self._refuse(sender, packet, TOO_BIG, "too big for the device")
        else:
            take_hop(packet)
            self._send(link, packet, UNFINISHED | size if flags & NEEDS_CSUM else 0)
        return True

    def _may_forward_to(self, destination: bytes) -> bool:
        return is_one_host(destination) and not is_link_local(destination) and destination not in self._own

    def _is_too_big(self, packet: memoryview, largest: int) -> bool:
        """Return whether a packet is too big for the device and must not be fragmented.

        `largest`: bytes of the packet, or of the largest packet that a superpacket is made of.
        """
        return largest > self._mtu and (packet[0] >= 0x50 or bool(packet[6] & _DF))

    def _refuse(self, sender: Link, packet: memoryview, error: IcmpError, reason: str) -> None:
        """Drop a packet, and send an ICMP error to its sender.

        The error's source is this end's address in the tunnel, or without one the packet's destination.
        """
        sender.drops[reason] += 1
        if may_be_told_of(packet) and self._errors.of(sender).take(self._clock()):
            destination = destination_of(packet)
            source = self._own.of_device(len(destination)) or destination
            reply = error_about(packet, error, source, self._mtu if error is TOO_BIG else 0)
            self._send(sender, memoryview(reply), 0)
