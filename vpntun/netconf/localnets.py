"""This host's own networks, the private networks of its addresses; and the addresses that one device has alone.

A network counts only if all its addresses are private. The operator of a network can give this host any address and
prefix length, so a network that claimed public addresses would get their traffic. Routes do not count, since whoever
answers DHCP requests can hand out any route.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

from vpntun.netconf.netlink import InterfaceAddress
from vpntun.types import Network

PRIVATE = tuple(
    map(
        ip_network,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),  # RFC 1918
            "100.64.0.0/10",  # RFC 6598, which the addresses derived from a shared key belong to
            "169.254.0.0/16",  # RFC 3927
            "fc00::/7",  # RFC 4193
            "fe80::/10",  # RFC 4291
        ),
    )
)


def own_networks(addresses: Iterable[InterfaceAddress], but_of: str) -> list[Network]:
    """List the private networks of all devices except the tunnel's own, each once, in order."""
    found = {each.network for each in addresses if each.device != but_of and each.is_somewhere_else}
    return sorted(filter(_is_private, found), key=lambda network: (network.version, network))


def addresses_only_of(device: str, addresses: Iterable[InterfaceAddress]) -> list[str]:
    """List the addresses of a device that no other device has, without the link-local ones, in order."""
    addresses = list(addresses)
    others = {each.address for each in addresses if each.device != device}
    own = {each.address for each in addresses if each.device == device and not ip_address(each.address).is_link_local}
    return sorted(own - others)


@lru_cache(maxsize=4096)
def _is_private(network: Network) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in PRIVATE)  # type: ignore[arg-type]
