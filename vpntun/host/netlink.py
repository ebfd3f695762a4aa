"""Addresses, routes, MTU and state of a device, through netlink; what was changed is changed back by `undo`.

Everything is idempotent: what is as it should be already is left alone, and stays when this program ends. pyroute2 is
imported where it is used, since it takes more memory than the rest of the program together.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any

from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError

if TYPE_CHECKING:
    from pyroute2 import IPRoute

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

AF_INET, AF_INET6 = 2, 10
IFA_F_NODAD = 0x02
IFF_UP = 0x1


class DeviceSettings:
    """What this program sets up on one device. Raises DeviceError, PrivilegeError or ConfigurationError."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._undo: list[Callable[[IPRoute, int], Any]] = []

    def apply(self, addresses: list[Interface], routes: list[Network], mtu: int | None) -> None:
        """Set the MTU, add the addresses, bring the device up, add the routes: in this order."""
        with _netlink() as netlink:
            index = netlink.link_lookup(ifname=self._device)[0]
            link = netlink.get_links(index)[0]
            if mtu is not None and link.get("mtu") != mtu:
                former = link.get("mtu")
                self._try("the MTU", netlink.link, "set", index=index, mtu=mtu)
                self._undo.append(lambda nl, i: nl.link("set", index=i, mtu=former))
            for address in addresses:
                self._add_address(netlink, index, address)
            if not link["flags"] & IFF_UP:
                self._try("the device's state", netlink.link, "set", index=index, state="up")
                self._undo.append(lambda nl, i: nl.link("set", index=i, state="down"))
            for route in routes:
                self._add_route(netlink, index, route)

    def undo(self) -> None:
        """Take away what `apply` added and change back what it changed, the last first."""
        if not self._undo:
            return
        with _netlink() as netlink:
            found = netlink.link_lookup(ifname=self._device)
            while self._undo and found:
                step = self._undo.pop()
                with suppress(netlink_error()):  # gone already, or taken away by somebody else
                    step(netlink, found[0])

    def _add_address(self, netlink: IPRoute, index: int, address: Interface) -> None:
        wanted: dict[str, Any] = {"address": str(address.ip), "prefixlen": address.network.prefixlen}
        if address.version == 6:
            wanted["flags"] = IFA_F_NODAD
        if self._try(f"the address {address}", netlink.addr, "add", index=index, **wanted):
            self._undo.append(lambda nl, i: nl.addr("del", index=i, **wanted))

    def _add_route(self, netlink: IPRoute, index: int, route: Network) -> None:
        family = AF_INET if route.version == 4 else AF_INET6
        wanted = {"dst": str(route), "family": family}
        if self._try(f"the route {route}", netlink.route, "add", oif=index, **wanted):
            self._undo.append(lambda nl, i: nl.route("del", oif=i, **wanted))
        elif not netlink.get_routes(family=family, dst=str(route), oif=index):
            raise ConfigurationError(
                f"there is a route to {route} already, by another device: remove it, or leave out --route"
            )

    def _try(self, what: str, request: Callable[..., Any], *words: str, **fields: Any) -> bool:
        """Make one request: False if it is so already."""
        try:
            request(*words, **fields)
        except netlink_error() as error:
            if error.code == errno.EEXIST:
                return False
            if error.code in (errno.EPERM, errno.EACCES):
                raise PrivilegeError(
                    f"no right to set {what} of {self._device}: run as root or with CAP_NET_ADMIN, or have it set up "
                    "beforehand and leave the option out"
                ) from error
            raise DeviceError(f"{what} of {self._device} cannot be set: {_reason(error)}") from error
        return True


def _netlink() -> IPRoute:
    from pyroute2 import IPRoute

    return IPRoute()


def netlink_error() -> type[Any]:
    """The exception class of a refused request."""
    from pyroute2.netlink.exceptions import NetlinkError

    error: type[Any] = NetlinkError
    return error


def _reason(error: Any) -> str:
    import os

    return os.strerror(error.code) if error.code else str(error)
