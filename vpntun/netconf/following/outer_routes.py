"""Questions to the kernel about its routes for the tunnel's own packets: device, gateway, and source address.

The questions are RTM_GETROUTE and, for a choice of the source, RTM_GETADDR and RTM_GETLINK (rtnetlink.py). One socket
stays open while the tunnel is up, so that a process that has no descriptors left can still ask. An answer takes some
15 us. Whether this host still has the source address of an IPv6 flow takes another question: for IPv4 the kernel checks
it, for IPv6 it does not.

If the device that packets leave by has no address of its own, the kernel takes one of another device (RFC 6724, section
5; ipv6_dev_get_saddr in net/ipv6/addrconf.c, inet_select_addr in net/ipv4/devinet.c): for IPv6 often the one that has
the most bits in common with the destination. That may be an address inside this tunnel or another, to which no answer
finds its way. `better_source` then names another address.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from vpntun.core.endpoint import Flow
from vpntun.core.outer_paths import OuterRoute
from vpntun.netconf.netlink import (
    IFA_ADDRESS,
    IFA_LOCAL,
    RTA_DST,
    RTA_OIF,
    RTA_PREFSRC,
    RTM_GETADDR,
    RTM_GETROUTE,
    links_by,
)
from vpntun.netconf.rtnetlink import Questions

RTA_SRC, RTA_GATEWAY, RTA_MARK, RTA_VIA = 2, 5, 16, 18
RTA_IP_PROTO, RTA_SPORT, RTA_DPORT = 27, 28, 29
IFA_FLAGS = 8
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40
GLOBAL_SCOPE, RTN_LOCAL = 0, 2
IPV6_SIZE = 16

_ROUTE = struct.Struct("=BBB4xBI")  # family, bits of destination and source, type, flags
_ADDRESS = struct.Struct("=BxBBI")  # family, flags, scope, index
_u32 = struct.Struct("=I")
_port = struct.Struct("!H")


class OuterRoutes:
    """Routes of the packets with this mark, 0 for none, of the tunnel on the device of this name.

    The name is None if the device is in another network namespace: no route of this one leads there.
    """

    def __init__(self, name: str | None, mark: int) -> None:
        self._name = name
        self._mark = mark
        self._questions = Questions()

    def leads_inside(self, flow: Flow) -> bool:
        """Whether the kernel sends this flow out through the tunnel's device; False without a route or the device.

        A source address that this host has lost is left out of the query, as the UDP socket leaves it out.
        """
        if self._name is None:
            return False
        try:
            return self._questions.index_of(self._name) == (flow.scope or self._ask(flow).device)
        except OSError:
            return bool(flow.source) and self.leads_inside(flow._replace(source=b""))

    def find(self, flow: Flow) -> OuterRoute | None:
        """Return the route of a flow; None if there is none, or this host has lost the flow's source address."""
        try:
            return self._ask(flow)
        except OSError:
            return None

    def better_source(self, flow: Flow) -> bytes:
        """Return the address to send a flow from, where the kernel would choose one inside a tunnel.

        Empty if the kernel's choice is good, or if this host has no other address that fits.
        """
        try:
            chosen = self._ask(flow)
            size = len(flow.destination)
            if not chosen.source or any(chosen.source == each for _, each, _ in self._addresses(size, chosen.device)):
                return b""
            addresses = list(self._addresses(size))
            tunnels = set(self._tunnels())
        except OSError:
            return b""
        if not any(address == chosen.source and device in tunnels for device, address, _ in addresses):
            return b""
        wanted = int.from_bytes(flow.destination, "big")

        def rank(found: tuple[int, bytes, int]) -> tuple[bool, int]:
            _, address, flags = found
            return bool(flags & IFA_F_DEPRECATED), (int.from_bytes(address, "big") ^ wanted).bit_length()

        others = [each for each in addresses if each[0] not in tunnels]
        return min(others, key=rank)[1] if others else b""

    def set_mark(self, mark: int) -> None:
        """Ask for packets with this mark from now on."""
        self._mark = mark

    def close(self) -> None:
        """Close the socket."""
        self._questions.close()

    def _ask(self, flow: Flow) -> OuterRoute:
        """Ask for the route of a flow. Raises OSError, also if this host does not have the flow's source address."""
        if len(flow.source) == IPV6_SIZE and not self._has(flow.source):
            raise OSError("this host does not have the source address")
        attributes = (
            (RTA_DST, flow.destination),
            (RTA_SRC, flow.source),
            (RTA_OIF, _u32.pack(flow.scope)),
            (RTA_MARK, _u32.pack(self._mark)),
            (RTA_IP_PROTO, bytes((flow.protocol,))),
            (RTA_SPORT, _port.pack(flow.source_port)),
            (RTA_DPORT, _port.pack(flow.destination_port)),
        )
        family = _family(len(flow.destination))
        body = _ROUTE.pack(family, 8 * len(flow.destination), 8 * len(flow.source), 0, 0)
        _, found = self._questions.ask(RTM_GETROUTE, body, [each for each in attributes if any(each[1])])
        if RTA_OIF not in found:
            raise OSError("the route has no device")
        gateway = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")
        return OuterRoute(_u32.unpack(found[RTA_OIF])[0], gateway, flow.source or found.get(RTA_PREFSRC, b""))

    def _has(self, address: bytes) -> bool:
        """Return whether packets to this IPv6 address stay on this host. Raises OSError."""
        body, _ = self._questions.ask(RTM_GETROUTE, _ROUTE.pack(socket.AF_INET6, 128, 0, 0, 0), [(RTA_DST, address)])
        return bool(_ROUTE.unpack(body)[3] == RTN_LOCAL)

    def _addresses(self, size: int, device: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """List device, address and flags of usable addresses of global scope, of one device or all. Raises OSError."""
        for body, found in self._questions.dump(RTM_GETADDR, _ADDRESS.pack(_family(size), 0, 0, device)):
            _, flags, scope, index = _ADDRESS.unpack(body)
            flags = _u32.unpack(found[IFA_FLAGS])[0] if IFA_FLAGS in found else flags
            address = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS, b"")
            usable = not flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)
            if usable and scope == GLOBAL_SCOPE and len(address) == size and device in (0, index):
                yield index, address, flags

    def _tunnels(self) -> Iterator[int]:
        """List the numbers of the tunnel's device and of all other tunnels'. Raises OSError."""
        if self._name is not None:
            yield self._questions.index_of(self._name)
        yield from (link.number for link in links_by(self._questions) if link.leads_to_a_tunnel)


def _family(size: int) -> int:
    return int(socket.AF_INET if size == 4 else socket.AF_INET6)
