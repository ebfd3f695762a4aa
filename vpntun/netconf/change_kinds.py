"""The changes that are made to this host's network: each knows how it is made, and how it is taken back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.netconf.netlink import Netlink, family_of
from vpntun.types import Interface, Network

IFA_F_NODAD = 0x02
IFF_UP = 0x1
FIB_RULE_INVERT = 0x2
FR_ACT_UNREACHABLE = 7
CONF = Path("/proc/sys/net/ipv4/conf")
STRICT, LOOSE = 1, 2


@dataclass(frozen=True)
class Mtu:
    """A device's MTU, in bytes."""

    device: str
    former: int
    mtu: int

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Set it. Raises DeviceError or PrivilegeError."""
        link, index = netlink.requests.link, netlink.index_of(self.device)
        return netlink.attempt(f"the MTU of {self.device}", link, "set", index=index, mtu=self.mtu)

    def take_back(self, netlink: Netlink) -> None:
        """Set the former one."""
        netlink.requests.link("set", index=netlink.index_of(self.device), mtu=self.former)


@dataclass(frozen=True)
class Up:
    """A device that is up."""

    device: str

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Bring it up. Raises DeviceError or PrivilegeError."""
        if netlink.link(self.device)["flags"] & IFF_UP:
            return False
        link, index = netlink.requests.link, netlink.index_of(self.device)
        return netlink.attempt(f"the state of {self.device}", link, "set", index=index, state="up")

    def take_back(self, netlink: Netlink) -> None:
        """Take it down."""
        netlink.requests.link("set", index=netlink.index_of(self.device), state="down")


@dataclass(frozen=True)
class Address:
    """An address of a device, and its network; for IPv6 without duplicate address detection."""

    device: str
    address: Interface

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Add it. Raises DeviceError or PrivilegeError."""
        what = f"the address {self.address} of {self.device}"
        flags = {"flags": IFA_F_NODAD} if self.address.version == 6 else {}
        return netlink.attempt(what, netlink.requests.addr, "add", **self._fields(netlink), **flags)

    def take_back(self, netlink: Netlink) -> None:
        """Remove it."""
        netlink.requests.addr("del", **self._fields(netlink))

    def _fields(self, netlink: Netlink) -> dict[str, object]:
        return {
            "index": netlink.index_of(self.device),
            "address": str(self.address.ip),
            "prefixlen": self.address.network.prefixlen,
        }


@dataclass(frozen=True)
class Route:
    """A network that lies behind a device. `source`: the address to send from, "" for the kernel's choice."""

    device: str
    network: Network
    table: int
    source: str = ""

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Add it. Raises DeviceError, PrivilegeError, or ConfigurationError if another device has such a route."""
        source = {"prefsrc": self.source} if self.source else {}
        what = f"the route {self.network} by {self.device}"
        if netlink.attempt(what, netlink.requests.route, "add", **self._fields(netlink), **source):
            return True
        if self.network not in netlink.routes(self.network.version, self.table, self.device):
            raise ConfigurationError(
                f"there is a route to {self.network} already, by another device: remove it, or leave it out here"
            )
        return False

    def take_back(self, netlink: Netlink) -> None:
        """Remove it."""
        netlink.requests.route("del", **self._fields(netlink))

    def _fields(self, netlink: Netlink) -> dict[str, object]:
        return {
            "dst": str(self.network),
            "family": family_of(self.network.version),
            "table": self.table,
            "oif": netlink.index_of(self.device),
        }


@dataclass(frozen=True)
class Rule:
    """What packets are looked up in which table; the lowest `priority` comes first.

    `table`: 0 refuses them. `without`: those that do not carry this mark; 0: all. `to`: those to this network, in
    text; "": to any. `shortest`: the prefix length of the shortest route in the table that counts.
    """

    version: int
    priority: int
    table: int
    without: int = 0
    to: str = ""
    shortest: int = 0

    on_device: ClassVar[bool] = False

    def make(self, netlink: Netlink) -> bool:
        """Add it. Raises DeviceError or PrivilegeError."""
        return netlink.attempt(f"rule {self.priority}", netlink.requests.rule, "add", **self._fields())

    def take_back(self, netlink: Netlink) -> None:
        """Remove it."""
        netlink.requests.rule("del", **self._fields())

    def _fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"family": family_of(self.version), "priority": self.priority}
        fields |= {"table": self.table} if self.table else {"action": FR_ACT_UNREACHABLE}
        if self.without:
            fields |= {"fwmark": self.without, "flags": FIB_RULE_INVERT}
        if self.to:
            address, _, length = self.to.partition("/")
            fields |= {"dst": address, "dst_len": int(length)}
        if self.shortest:
            fields |= {"suppress_prefixlen": self.shortest - 1}
        return fields


@dataclass(frozen=True)
class LooseFilter:
    """The IPv4 reverse path filter (rp_filter, the kernel's ip-sysctl), loose where it was strict.

    A strict one drops what comes from a peer by another device than an answer without the mark would leave by, and so
    all of a full tunnel's packets. The greater of `all` and the device's own setting counts, and loose is the greatest.
    """

    former: int

    on_device: ClassVar[bool] = False

    def make(self, netlink: Netlink) -> bool:
        """Set it, where it is strict on any device. Raises PrivilegeError."""
        if not filter_is_strict():
            return False
        try:
            _filter_of("all").write_text(f"{LOOSE}\n")
        except OSError as error:
            raise PrivilegeError(
                f"net.ipv4.conf.all.rp_filter cannot be set to {LOOSE} ({error.strerror}): while it is strict, no peer "
                "is heard over IPv4 in a full tunnel. Set it beforehand, where this program may not"
            ) from error
        return True

    def take_back(self, netlink: Netlink) -> None:
        """Set it as it was, unless somebody else has set it meanwhile."""
        if filter_setting() == LOOSE:
            _filter_of("all").write_text(f"{self.former}\n")


def filter_setting() -> int:
    """The reverse path filter's setting for all devices."""
    return int(_filter_of("all").read_text())


def filter_is_strict() -> bool:
    """Whether it is strict on any device, or would be on the next one."""
    settings = [int(path.read_text()) for path in CONF.glob("*/rp_filter") if path.parent.name not in ("all", "lo")]
    return STRICT in (max(each, filter_setting()) for each in settings)


def _filter_of(device: str) -> Path:
    return CONF / device / "rp_filter"
