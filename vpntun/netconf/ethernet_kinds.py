"""Kinds of change to a TAP device: its MAC address, and its place in a bridge, as change_kinds.py has the others.

A bridge is the operator's, and has to be there. Only the device is changed, so nothing is left in the bridge at the
end.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import ClassVar

from vpntun.errors import DeviceError
from vpntun.netconf.netlink import Link, Netlink


@dataclass(frozen=True)
class Mac:
    """A device's MAC address, as text."""

    device: str
    former: str
    mac: str

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Set it. Raises DeviceError or PrivilegeError."""
        link, index = netlink.requests.link, netlink.index_of(self.device)
        return netlink.attempt(f"the MAC address of {self.device}", link, "set", index=index, address=self.mac)

    def take_back(self, netlink: Netlink) -> None:
        """Set the former address."""
        netlink.requests.link("set", index=netlink.index_of(self.device), address=self.former)


@dataclass(frozen=True)
class BridgePort:
    """A device's place in a bridge."""

    device: str
    bridge: str

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Have the device join the bridge. Raises DeviceError, also if it has joined another; or PrivilegeError."""
        link, bridge = netlink.link(self.device), bridge_of(netlink, self.bridge)
        if link.master == bridge.number:
            return False
        if link.master:
            master = _master_of(netlink, link)
            raise DeviceError(
                f"{self.device} belongs to {master.name if master is not None else 'another device'} already: take it "
                f"out ('ip link set {self.device} nomaster'), or give that as the bridge"
            )
        what = f"the place of {self.device} in the bridge {self.bridge}"
        return netlink.attempt(what, netlink.requests.link, "set", index=link.number, master=bridge.number)

    def take_back(self, netlink: Netlink) -> None:
        """Have the device leave the bridge, unless somebody has moved it."""
        bridge, link = netlink.index_of(self.bridge), netlink.link(self.device)
        if link.master == bridge:
            netlink.requests.link("set", index=link.number, master=0)


def bridge_with(netlink: Netlink, device: str) -> str | None:
    """Return the name of the bridge that a device is in, None if it is in none. Raises DeviceError without a device."""
    master = _master_of(netlink, netlink.link(device))
    return master.name if master is not None and master.kind == "bridge" else None


def bridge_of(netlink: Netlink, name: str) -> Link:
    """Return the kernel's description of a bridge. Raises DeviceError if there is none of this name."""
    try:
        link = netlink.link(name)
    except DeviceError:
        raise DeviceError(
            f"there is no bridge {name}: make it ('ip link add {name} type bridge' and 'ip link set {name} up'), or "
            "leave it out"
        ) from None
    if link.kind != "bridge":
        raise DeviceError(f"{name} is not a bridge: 'ip link show type bridge' lists this host's bridges; name one")
    return link


def _master_of(netlink: Netlink, link: Link) -> Link | None:
    """Return the bridge or other device that a device belongs to; None if there is none, or none any more."""
    try:
        return netlink.link(socket.if_indextoname(link.master)) if link.master else None
    except (OSError, DeviceError):
        return None
