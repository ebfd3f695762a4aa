"""This host's own networks: those of its addresses, as far as nobody on the Internet can have them.

A network counts only if it is private as a whole: whoever runs a network can give this host any address in it, and one
that named public addresses its own would be given their traffic. Routes count for nothing, since whoever answers DHCP
can hand out any.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_network

from vpntun.netconf.netlink import InterfaceAddress
from vpntun.types import Network

PRIVATE = tuple(
    map(
        ip_network,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
            "100.64.0.0/10",  # RFC 6598, and so the addresses that follow from a shared key
            "169.254.0.0/16",  # RFC 3927
            "fc00::/7",  # RFC 4193
            "fe80::/10",  # RFC 4291
        ),
    )
)
RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x10, 0x100


def own_networks(addresses: Iterable[InterfaceAddress], but_of: str) -> list[Network]:
    """The networks of all devices but one that are private as a whole, each once, in order."""
    found = {each.network for each in addresses if each.device != but_of and each.is_somewhere_else}
    return sorted(filter(_is_private, found), key=lambda network: (network.version, network))


class AddressWatch:
    """Becomes readable when an address of this host comes or goes."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Forget what was told, and say whether anything was: who asks the kernel next hears all of it."""
        told = False
        while True:
            try:
                self._socket.recv(65536)
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # more was told than there is room for
                    return told
            told = True

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()


def _is_private(network: Network) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in PRIVATE)  # type: ignore[arg-type]
