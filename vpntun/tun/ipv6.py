"""IPv6 on a device: whether the kernel carries it there, and what is left out of a tunnel where it does not.

IPv6 is often disabled for a whole host or container (net.ipv6.conf.all.disable_ipv6, which new devices follow). The
kernel then refuses IPv6 addresses and routes, but IPv4 goes through the tunnel all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from vpntun.config.tunnel import SMALLEST_MTU_FOR_IPV6, Tunnel
from vpntun.runtime.log import notice
from vpntun.types import Interface, Network

Item = TypeVar("Item", Interface, Network)

CONF = Path("/proc/sys/net/ipv6/conf")
_OFF = f"IPv6 is disabled on %s, or its MTU is below {SMALLEST_MTU_FOR_IPV6}: "


def carries_ipv6(device: str, mtu: int, conf: Path = CONF) -> bool:
    """Whether the kernel carries IPv6 on a device of this name and MTU, which need not exist yet."""
    return mtu >= SMALLEST_MTU_FOR_IPV6 and _is_enabled(device, conf)


def addresses_of(tunnel: Tunnel, mtu: int) -> list[Interface]:
    """Return those of a tunnel's own addresses that its device can have; a notice names configured ones left out."""
    if tunnel.addresses:
        return carried_addresses(tunnel.interface, mtu, tunnel.addresses)
    return _carried(tunnel.interface, mtu, list(tunnel.own_addresses))


def carried_addresses(device: str, mtu: int, addresses: Iterable[Interface]) -> list[Interface]:
    """Return the addresses that the device can have; a notice names those that are left out."""
    addresses = list(addresses)
    carried = _carried(device, mtu, addresses)
    if left_out := [str(each) for each in addresses if each not in carried]:
        notice(_OFF + "left out %s", device, ", ".join(left_out))
    return carried


def carried_networks(device: str, mtu: int, networks: Iterable[Network]) -> list[Network]:
    """Return the networks that can be routed to the device; a notice says if that excludes those of IPv6."""
    networks = list(networks)
    carried = _carried(device, mtu, networks)
    if len(carried) < len(networks):
        notice(_OFF + "the tunnel carries no IPv6", device)
    return carried


def _carried(device: str, mtu: int, items: list[Item]) -> list[Item]:
    if all(each.version == 4 for each in items) or carries_ipv6(device, mtu):
        return items
    return [each for each in items if each.version == 4]


def _is_enabled(device: str, conf: Path) -> bool:
    for each in (device, "default"):  # a device without a folder, since it is new or its MTU was too small, gets these
        try:
            return (conf / each / "disable_ipv6").read_text().strip() == "0"
        except OSError:
            continue
    return False  # the kernel has no IPv6
