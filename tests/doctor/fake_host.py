"""A host whose network is what a test says."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_interface, ip_network

from vpntun.doctor.host import HostRoute
from vpntun.doctor.ruleset import Ruleset
from vpntun.errors import VpntunError
from vpntun.netconf.netlink import IFF_NOARP, IFF_UP, InterfaceAddress, Link
from vpntun.types import IpAddress


@dataclass
class FakeHost:
    """`devices`: the MTU of each; those named in `tunnels` are other tunnels, and those in `down` are down. `bridges`:
    the ports of each bridge. `has`: addresses by device. `leads`: the device of each network, of which the longest
    counts, as in the main table; `marked`: the same for marked packets.
    """

    devices: dict[str, int] = field(default_factory=lambda: {"eth0": 1500})
    tunnels: tuple[str, ...] = ()
    bridges: dict[str, tuple[str, ...]] = field(default_factory=dict)
    down: tuple[str, ...] = ()
    has: dict[str, tuple[str, ...]] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=lambda: {"0.0.0.0/0": "eth0", "::/0": "eth0"})
    marked: dict[str, str] | None = None
    settings: dict[str, int] = field(default_factory=dict)
    rules: Ruleset | VpntunError = field(default_factory=lambda: Ruleset([]))
    legacy: bool = False

    def links(self) -> list[Link]:
        numbers = {name: number for number, name in enumerate(self.devices, 1)}
        masters = {port: numbers[bridge] for bridge, ports in self.bridges.items() for port in ports}
        return [
            Link(numbers[name], name, self._flags(name), mtu, self._kind(name), master=masters.get(name, 0))
            for name, mtu in self.devices.items()
        ]

    def _flags(self, name: str) -> int:
        return (0 if name in self.down else IFF_UP) | (IFF_NOARP if name in self.tunnels else 0)

    def _kind(self, name: str) -> str:
        return "tun" if name in self.tunnels else "bridge" if name in self.bridges else ""

    def addresses(self) -> list[InterfaceAddress]:
        found = [(device, ip_interface(each)) for device, all_of in self.has.items() for each in all_of]
        return [InterfaceAddress(device, str(each.ip), each.network) for device, each in found]

    def routes(self, version: int) -> list[HostRoute]:
        found = [HostRoute(ip_network(network), device) for network, device in self.leads.items()]
        return [each for each in found if each.network.version == version]

    def device_to(self, address: IpAddress, mark: int = 0) -> str | None:
        leads = self.marked if mark and self.marked is not None else self.leads
        fitting = [ip_network(each) for each in leads]
        fitting = [each for each in fitting if each.version == address.version and address in each]
        return leads[str(max(fitting, key=lambda each: each.prefixlen))] if fitting else None

    def setting(self, name: str) -> int | None:
        return self.settings.get(name)

    def ruleset(self) -> Ruleset:
        if isinstance(self.rules, VpntunError):
            raise self.rules
        return self.rules

    def has_legacy_rules(self) -> bool:
        return self.legacy
