"""This host's own networks and addresses.

Own networks are the private networks of its addresses. A network counts only if all its addresses are private. The
operator of a network can give this host any address and prefix length, so a network that claimed public addresses would
get their traffic. Routes do not count, since whoever answers DHCP requests can hand out any route.

For the relay, the addresses are refreshed on demand and never more than a second old. A look-up checks, at most once a
second, whether the kernel has announced a change, which costs next to nothing. Only after a change does it ask the
kernel for all addresses, which takes some milliseconds. If the kernel does not answer, the previous addresses stay
valid, and the kernel is asked again a second later.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_address, ip_interface, ip_network

from vpntun.errors import DeviceError
from vpntun.netconf.netlink import InterfaceAddress, Netlink
from vpntun.runtime.clock import boottime
from vpntun.types import Interface, IpAddress, Network
from vpntun.wire.ip import is_link_local

SECONDS_BETWEEN = 1.0
DISCARD = 9
IPV6_ADDR_PREFERENCES, IPV6_PREFER_SRC_PUBLIC = 72, 0x0002  # linux/in6.h; RFC 5014

AddressOnDevice = tuple[bytes, str]
"""An address of 4 or 16 bytes, and the name of its device."""

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


def public_address() -> IpAddress | None:
    """Return the public address that this host sends from to the internet, IPv4 if it has one; None if it has none.

    The kernel chooses it by its routes; nothing is sent. Of several IPv6 addresses it takes a lasting one (RFC 8981).
    """
    for family, anywhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, IPV6_PREFER_SRC_PUBLIC)
            probe.connect((anywhere, DISCARD))
            address = ip_address(probe.getsockname()[0])
            if address.is_global:
                return address
    return None


def read_all() -> list[AddressOnDevice]:
    """Ask the kernel for all addresses. Raises OSError or DeviceError."""
    with Netlink() as netlink:
        return [(ip_address(each.address).packed, each.device) for each in netlink.addresses()]


def addresses_of(device: str) -> list[Interface]:
    """Return the addresses of a device, without link-local ones. Raises OSError or DeviceError."""
    with Netlink() as netlink:
        found = [each for each in netlink.addresses() if each.device == device]
    return [
        ip_interface(f"{each.address}/{each.network.prefixlen}")
        for each in found
        if not ip_address(each.address).is_link_local
    ]


class OwnAddresses:
    """This machine's addresses, and which of them the tunnel's device has.

    `has_changed`: whether the kernel has announced a change since the last call. `read`: ask for the addresses.
    """

    def __init__(
        self,
        device: str,
        has_changed: Callable[[], bool],
        read: Callable[[], list[AddressOnDevice]] = read_all,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._device = device
        self._has_changed = has_changed
        self._read = read
        self._clock = clock
        self._check_at = clock() + SECONDS_BETWEEN
        self._all: frozenset[bytes] = frozenset()
        self._of_device: dict[int, bytes] = {}
        self._is_known = False
        self._refresh()

    def __contains__(self, address: bytes) -> bool:
        """Whether this machine has the address, so that a packet to it has reached its destination."""
        now = self._clock()
        if now >= self._check_at:
            self._check_at = now + SECONDS_BETWEEN
            if self._has_changed() or not self._is_known:
                self._refresh()
        return address in self._all

    def of_device(self, size: int) -> bytes | None:
        """Return the first address of the tunnel's device that has `size` bytes, 4 or 16, and is not link-local."""
        return self._of_device.get(size)

    def _refresh(self) -> None:
        self._is_known = False
        with suppress(OSError, DeviceError):
            found = self._read()
            self._all = frozenset(address for address, _ in found)
            own = [address for address, device in found if device == self._device and not is_link_local(address)]
            self._of_device = {len(address): address for address in reversed(own)}
            self._is_known = True


@lru_cache(maxsize=4096)
def _is_private(network: Network) -> bool:
    return any(network.version == each.version and network.subnet_of(each) for each in PRIVATE)  # type: ignore[arg-type]
