"""Netlink socket that reads and changes the kernel's network settings, open only while it is used.

pyroute2 is imported only when it is used, since it takes more memory than the rest of the program together.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import ip_network
from typing import Any, NamedTuple

from vpntun.errors import DeviceError, PrivilegeError
from vpntun.types import Network

AF_INET, AF_INET6 = 2, 10
MAIN = 254


class InterfaceAddress(NamedTuple):
    """An address of a device, and its network; on a point-to-point device, the network of the other end's address."""

    device: str
    address: str
    network: Network

    @property
    def is_somewhere_else(self) -> bool:
        """Whether the network has any address besides this one."""
        return str(self.network.network_address) != self.address or self.network.num_addresses > 1


class Netlink(AbstractContextManager["Netlink"]):
    """An open netlink socket; `requests` is pyroute2's object for it."""

    def __init__(self) -> None:
        from pyroute2 import IPRoute

        self.requests = IPRoute()
        self._indices: dict[str, int] = {}

    def __exit__(self, *_: object) -> None:
        self.requests.close()

    def index_of(self, device: str) -> int:
        """Return the kernel's number of a device. Raises DeviceError if there is no such device."""
        if device not in self._indices:
            found = self.requests.link_lookup(ifname=device)
            if not found:
                raise DeviceError(f"the device {device} is gone: it was deleted; start again")
            self._indices[device] = found[0]
        return self._indices[device]

    def link(self, device: str) -> Any:
        """Return the kernel's description of a device. Raises DeviceError if there is no such device."""
        return self.requests.get_links(self.index_of(device))[0]

    def attempt(self, what: str, request: Callable[..., Any], *words: str, **fields: Any) -> bool:
        """Make a request that sets `what`. Returns False if it is set already. Raises PrivilegeError or DeviceError."""
        try:
            request(*words, **fields)
        except netlink_error() as error:
            if error.code == errno.EEXIST:
                return False
            if error.code in (errno.EPERM, errno.EACCES):
                raise PrivilegeError(
                    f"no right to set {what}: run as root or with CAP_NET_ADMIN, or have root set it up before "
                    "the start and leave the option out"
                ) from error
            raise DeviceError(f"{what} cannot be set: {_reason(error)}") from error
        return True

    def routes(self, version: int, table: int, device: str | None = None) -> Iterator[Network]:
        """List the destinations of the routes in a table, through one device or all."""
        wanted = {"oif": self.index_of(device)} if device is not None else {}
        for route in self.requests.get_routes(family=family_of(version), table=table, **wanted):
            address = route.get_attr("RTA_DST") or ("0.0.0.0" if version == 4 else "::")
            yield ip_network(f"{address}/{route['dst_len']}")

    def rules(self, version: int) -> Iterator[Any]:
        """List the policy rules of an IP version, as pyroute2's messages."""
        yield from self.requests.get_rules(family=family_of(version))

    def addresses(self) -> Iterator[InterfaceAddress]:
        """List this host's addresses, each with the network that it makes reachable."""
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in self.requests.get_links()}
        for found in self.requests.get_addr():
            if found["family"] in (AF_INET, AF_INET6):
                other = found.get_attr("IFA_ADDRESS")
                own = found.get_attr("IFA_LOCAL") or other
                network = ip_network(f"{other}/{found['prefixlen']}", strict=False)
                yield InterfaceAddress(names.get(found["index"], ""), own, network)


def family_of(version: int) -> int:
    """Return the kernel's address family for IP version 4 or 6."""
    return AF_INET if version == 4 else AF_INET6


def netlink_error() -> type[Any]:
    """Return the exception class that pyroute2 raises for a refused request."""
    from pyroute2.netlink.exceptions import NetlinkError

    error: type[Any] = NetlinkError
    return error


def _reason(error: Any) -> str:
    return os.strerror(error.code) if error.code else str(error)
