"""Settings of the tunnel's device: MTU, MAC address, bridge, addresses, state, and the routes of `--route`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vpntun.netconf.change_kinds import Address, GatewayRoute, Mtu, Route, Up
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.ethernet_kinds import BridgePort, Mac
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.upkeep import Host
from vpntun.types import Interface, IpAddress, Network
from vpntun.wire.ethernet.mac import mac_text


class DeviceSettings:
    """The settings of one device.

    They are made in this order: the MTU, the MAC address, the bridge, the addresses, the device up, the routes.

    `journal` None: if this process is killed, the settings stay. `ephemeral`: this process made the device, whose
    settings vanish with it.
    """

    def __init__(self, device: str, journal: Journal | None = None, *, ephemeral: bool = False) -> None:
        self._device = device
        self.changes = Changes(journal, device_is_ephemeral=ephemeral)
        self.current: list[Change] = []

    def apply(
        self,
        addresses: list[Interface],
        routes: list[Network],
        mtu: int | None,
        *,
        mac: bytes | None = None,
        bridge: str | None = None,
        up: bool = True,
        gateways: Mapping[Network, IpAddress] = MappingProxyType({}),
    ) -> None:
        """Make the settings that are missing. Raises DeviceError, PrivilegeError or ConfigurationError.

        `up`: whether to bring the device up. `gateways`: of those routes that have one. If it fails, nothing has
        changed.
        """
        device = self._device
        with Netlink() as netlink:
            wanted: list[Change] = []
            former = netlink.link(device)
            if mtu is not None and mtu != former.mtu:
                wanted.append(Mtu(device, former.mtu, mtu))
            if mac is not None and mac != former.mac:
                wanted.append(Mac(device, mac_text(former.mac), mac_text(mac)))
            if bridge is not None:
                wanted.append(BridgePort(device, bridge))
            wanted += (Address(device, each) for each in addresses)
            if up:
                wanted.append(Up(device))
            wanted += (self._route(each, gateways.get(each)) for each in routes)
            self.changes.reconcile(wanted, netlink)
        self.current = wanted

    def _route(self, network: Network, gateway: IpAddress | None) -> Change:
        if gateway is None:
            return Route(self._device, network, MAIN)
        return GatewayRoute(self._device, network, MAIN, gateway=str(gateway))

    def follow(self, _: Host) -> list[Change]:
        """Return what `apply` has set, which depends on nothing else of this host."""
        return self.current

    def undo(self) -> None:
        """Take back what `apply` changed, the last change first."""
        self.changes.undo()
