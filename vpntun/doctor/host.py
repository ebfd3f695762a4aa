"""This host's network settings as the checks ask for them: a protocol, and the kernel's answers to it.

Nothing here changes anything. Tests of the checks use tests/doctor/fake_host.py in place of the kernel.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from vpntun.core.endpoint import Flow
from vpntun.doctor.ruleset import Ruleset, read_ruleset, uses_legacy
from vpntun.netconf.following.outer_routes import OuterRoutes
from vpntun.netconf.netlink import MAIN, InterfaceAddress, Link, Netlink, whole
from vpntun.types import IpAddress, Network

SETTINGS = Path("/proc/sys")


class HostRoute(NamedTuple):
    """A route of the main table, with the name of its device, "" if it has none or several."""

    network: Network
    device: str


class Host(Protocol):
    """Answers about this host's network."""

    def links(self) -> list[Link]:
        """List the devices."""

    def addresses(self) -> list[InterfaceAddress]:
        """List the addresses of all devices."""

    def routes(self, version: int) -> list[HostRoute]:
        """List the unicast routes of the main table."""

    def device_to(self, address: IpAddress, mark: int = 0) -> str | None:
        """Return the name of the device by which UDP packets to an address leave, None if there is no route."""

    def setting(self, name: str) -> int | None:
        """Return a number below /proc/sys, by its path there; None if there is none."""

    def ruleset(self) -> Ruleset:
        """Return the packet filter's rules. Raises VpntunError if they cannot be read."""

    def has_legacy_rules(self) -> bool:
        """Whether iptables-legacy has rules, which the ruleset lacks."""


class KernelHost:
    """The kernel's answers."""

    def links(self) -> list[Link]:
        """List the devices. Raises OSError or DeviceError."""
        with Netlink() as netlink:
            return whole(netlink.links)

    def addresses(self) -> list[InterfaceAddress]:
        """List the addresses of all devices. Raises OSError or DeviceError."""
        with Netlink() as netlink:
            return netlink.addresses()

    def routes(self, version: int) -> list[HostRoute]:
        """List the unicast routes of the main table. Raises OSError or DeviceError."""
        with Netlink() as netlink:
            names = {link.number: link.name for link in whole(netlink.links)}
            found = whole(lambda: netlink.found_routes(version, MAIN))
        return [HostRoute(route.network, names.get(route.device, "")) for route in found]

    def device_to(self, address: IpAddress, mark: int = 0) -> str | None:
        """Return the name of the device by which UDP packets to an address leave, None if there is no route."""
        with _asked(mark) as kernel:
            route = kernel.find(Flow(socket.IPPROTO_UDP, b"", 0, address.packed, 0))
        try:
            return socket.if_indextoname(route.device) if route is not None else None
        except OSError:
            return None

    def setting(self, name: str) -> int | None:
        """Return a number below /proc/sys, by its path there; None if there is none."""
        try:
            return int((SETTINGS / name).read_text())
        except (OSError, ValueError):
            return None

    def ruleset(self) -> Ruleset:
        """Return the packet filter's rules. Raises VpntunError if they cannot be read."""
        return read_ruleset()

    def has_legacy_rules(self) -> bool:
        """Whether iptables-legacy has rules, as far as this user may know."""
        return uses_legacy()


@contextmanager
def _asked(mark: int) -> Iterator[OuterRoutes]:
    kernel = OuterRoutes("", mark)
    try:
        yield kernel
    finally:
        kernel.close()
