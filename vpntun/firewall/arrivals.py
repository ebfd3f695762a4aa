"""Marks for what arrives from the peers, and a guard for the tunnel's addresses, in tables of nftables.

A full tunnel's own packets carry a mark, and this host's routes to the peers hold for that mark alone. A reverse path
filter asks where an answer would leave. So one that minds marks drops what the peers send, unless it is marked:
firewalld's for IPv6, NixOS's, `fib saddr . mark . iif`, and the kernel's own with src_valid_mark.

wg-quick saves the mark in the connection and restores it, for UDP. Here a packet gets the mark of the socket that it is
for. That works for TCP too, for ICMP errors, for a peer's first packet, and without connection tracking. ARP and
neighbour discovery are marked as well, for they concern the uplink, also where its network has public addresses.

    table inet vpntun-IFACE
    priority  -310  before everything else, filters in the table "raw" included
                    to an address of the tunnel, by another device, from another host: dropped
                    to a socket with the mark, or to the port where peers connect by TCP: marked
                    neighbour discovery: marked
    priority  -145  after connection tracking, which knows what this host's NAT has changed, and after those who set
                    marks at -150, but before the filters at -140
                    to a socket with the mark: marked
    table arp vpntun-IFACE
    priority     0  everything: marked, since the kernel's filter looks at ARP requests too

wg-quick has the same guard. Without it, anyone on this host's network could find the tunnel's address by probing, and
then the connections in the tunnel (CVE-2019-14899). Addresses that another device has as well stay reachable.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address

from vpntun.firewall.nftables import (
    ARP,
    ARP_INPUT,
    AT_LEAST,
    AT_MOST,
    EQUAL,
    FIB_DADDR,
    FIB_SADDR,
    INET,
    META_IIFNAME,
    META_L4PROTO,
    META_MARK,
    META_NFPROTO,
    NETWORK_HEADER,
    PREROUTING,
    TRANSPORT_HEADER,
    UNEQUAL,
    Chain,
    Expression,
    OwnTables,
    compare,
    drop,
    load_meta,
    load_payload,
    load_socket_mark,
    load_type,
    set_mark,
)
from vpntun.runtime.log import notice

BEFORE_RAW, AFTER_MANGLE = -310, -145
RTN_LOCAL = 2
IFNAMSIZ = 16

Rule = tuple[Expression, ...]


class Arrivals:
    """The tables of one tunnel. `port`: where its peers connect by TCP, None if they do not."""

    def __init__(self, device: str, port: int | None = None) -> None:
        self._device = device
        self._port = port
        self._tables: OwnTables | None = None
        self._content: tuple[int, tuple[str, ...]] | None = None
        self._problem = ""

    def mark(self, mark: int, guarded: Iterable[str]) -> bool:
        """Mark what arrives for sockets with this mark, and guard these addresses of the device.

        Returns False if the tables cannot be made or updated; a notice says so, once for each reason. Tables that
        cannot be updated stay as they were.
        """
        content = mark, tuple(guarded)
        if content == self._content:
            return True
        name = f"vpntun-{self._device}"
        were_made = self._tables is not None
        try:
            if self._tables is None:
                self._tables = OwnTables()
            self._tables.replace(INET, name, self._chains(*content))
            self._tables.replace(ARP, name, [Chain("input", ARP_INPUT, 0, (set_mark(mark),))])
        except OSError as error:
            self._content = None
            if not were_made:
                self.close()
            self._tell(error.strerror or str(error))
            return False
        self._content, self._problem = content, ""
        return True

    def change_port(self, port: int | None) -> None:
        """Mark what arrives for another port from now on, as the peers connect there."""
        self._port = port
        if self._content is not None:
            content, self._content = self._content, None
            self.mark(*content)

    def close(self) -> None:
        """Remove the tables."""
        if self._tables is not None:
            self._tables.close()
        self._tables = self._content = None

    def _tell(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if self._tables is not None:
            notice("the tables of nftables cannot be updated (%s): they mark and guard what they did before", problem)
        else:
            notice(
                "no tables of nftables can be made (%s): a firewall whose reverse path filter minds marks drops what "
                "the peers send, and other devices lead to the tunnel's addresses",
                problem,
            )

    def _chains(self, mark: int, guarded: tuple[str, ...]) -> list[Chain]:
        marked = set_mark(mark)
        expected = struct.pack("=I", mark)
        by_another = (load_meta(META_IIFNAME), compare(self._device.encode().ljust(IFNAMSIZ, b"\0"), UNEQUAL))
        for_the_tunnel = (*by_another, load_socket_mark(), compare(expected), *marked)
        first: list[Rule] = [(*by_another, *_to(address), *_of_type(FIB_SADDR, UNEQUAL), drop()) for address in guarded]
        first.append(for_the_tunnel)
        if self._port is not None:
            # The socket of a connection that is being opened has no mark yet.
            first.append((*by_another, *_to_tcp(self._port), *_of_type(FIB_DADDR), *marked))
        first.append((*by_another, *_neighbour_discovery(), *marked))
        unmarked = (load_meta(META_MARK), compare(expected, UNEQUAL))
        return [
            Chain("first", PREROUTING, BEFORE_RAW, tuple(first)),
            Chain("later", PREROUTING, AFTER_MANGLE, ((*unmarked, *for_the_tunnel),)),
        ]


def _to(address: str) -> Rule:
    packed = ip_address(address).packed
    family, offset = (socket.AF_INET, 16) if len(packed) == 4 else (socket.AF_INET6, 24)
    return (*_of_family(family), load_payload(NETWORK_HEADER, offset, len(packed)), compare(packed))


def _of_family(family: int) -> Rule:
    return load_meta(META_NFPROTO), compare(bytes((family,)))


def _to_tcp(port: int) -> Rule:
    is_tcp = (load_meta(META_L4PROTO), compare(bytes((socket.IPPROTO_TCP,))))
    return (*is_tcp, load_payload(TRANSPORT_HEADER, 2, 2), compare(port.to_bytes(2, "big")))


def _neighbour_discovery() -> Rule:
    """Match ICMPv6 133 to 137, which no router has forwarded: their hop limit is 255 (RFC 4861)."""
    return (
        *_of_family(socket.AF_INET6),
        *(load_meta(META_L4PROTO), compare(bytes((socket.IPPROTO_ICMPV6,)))),
        *(load_payload(TRANSPORT_HEADER, 0, 1), compare(bytes((133,)), AT_LEAST), compare(bytes((137,)), AT_MOST)),
        *(load_payload(NETWORK_HEADER, 7, 1), compare(bytes((255,)))),
    )


def _of_type(which: int, how: int = EQUAL) -> Rule:
    return load_type(which), compare(struct.pack("=I", RTN_LOCAL), how)
