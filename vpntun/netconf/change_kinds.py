"""Kinds of change to this host's network: each makes itself, and takes itself back.

The journal stores the names of the classes and their fields, so a rename would change the format of its files.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.netconf.netlink import FIB_RULE_INVERT, KERNELS_TABLES, Netlink, family_of
from vpntun.types import Interface, Network

IFA_F_NODAD = 0x02
FR_ACT_TO_TBL, FR_ACT_UNREACHABLE = 1, 7
CONF = Path("/proc/sys/net/ipv4/conf")
STRICT, LOOSE = 1, 2
MERGED = 32420
"""Priority of the first rule that merges a table with main (route_plan.py)."""
PRIORITIES = range(32400, MERGED + 2 * 128 + 2)
"""Priorities of all rules in route_plan.py; merging_rules makes the last one.

They come late, just before main's 32766, so that rules of other programs keep their rank.
"""


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
        """Set the former MTU."""
        netlink.requests.link("set", index=netlink.index_of(self.device), mtu=self.former)


@dataclass(frozen=True)
class Up:
    """The state of a device, from down to up."""

    device: str

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Bring the device up. Raises DeviceError or PrivilegeError."""
        if netlink.link(self.device).is_up:
            return False
        link, index = netlink.requests.link, netlink.index_of(self.device)
        return netlink.attempt(f"the state of {self.device}", link, "set", index=index, state="up")

    def take_back(self, netlink: Netlink) -> None:
        """Take the device down."""
        netlink.requests.link("set", index=netlink.index_of(self.device), state="down")


@dataclass(frozen=True)
class Address:
    """An address of a device, with its network; for IPv6 without duplicate address detection."""

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
    """A route to a network through a device. `source`: the address to send from, "" for the kernel's choice."""

    device: str
    network: Network
    table: int
    source: str = ""

    on_device: ClassVar[bool] = True

    def make(self, netlink: Netlink) -> bool:
        """Add it. Raises DeviceError, PrivilegeError, or ConfigurationError if another device has this route."""
        source = {"prefsrc": self.source} if self.source else {}
        what = f"the route to {self.network} through {self.device}"
        if netlink.attempt(what, netlink.requests.route, "add", **self._fields(netlink), **source):
            return True
        if self.network not in netlink.routes(self.network.version, self.table, self.device):
            raise ConfigurationError(
                f"there is a route to {self.network} already, through another device: remove that route, or do not "
                "configure this one"
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
class GatewayRoute(Route):
    """A route to a network through a gateway, which is a station of the Ethernet that a TAP device leads to."""

    gateway: str = ""

    def make(self, netlink: Netlink) -> bool:
        """Add it. Raises DeviceError, PrivilegeError, or ConfigurationError if another device has this route."""
        try:
            return super().make(netlink)
        except DeviceError as error:
            raise DeviceError(
                f"{error}: the gateway {self.gateway} must be another station in the network of an address of "
                f"{self.device}"
            ) from error

    def _fields(self, netlink: Netlink) -> dict[str, object]:
        return {**super()._fields(netlink), "gateway": self.gateway}


@dataclass(frozen=True)
class OtherRoute(Route):
    """A copy of a route through another virtual device in the table of a full tunnel."""

    on_device: ClassVar[bool] = False


@dataclass(frozen=True)
class Rule:
    """A policy rule: which packets are looked up in which table. The rule with the lowest `priority` comes first.

    `table`: the table's number; 0 refuses the packets. `without`: match packets without this mark; 0 matches all.
    `to`: match packets to this network, as text; "" matches all. `shortest`: the prefix length below which routes in
    the table do not count.
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
class ValidMark:
    """The kernel's setting by which its IPv4 reverse path filter minds marks (src_valid_mark in ip-sysctl).

    Arriving packets that carry the tunnel's mark (firewall/arrivals.py) then pass a strict filter, which stays strict.
    Several tunnels share the setting, and the last one to end switches it off; routing.py leaves it alone if the
    operator has switched it on. `table`: this tunnel's.
    """

    table: int

    on_device: ClassVar[bool] = False

    def make(self, netlink: Netlink) -> bool:
        """Switch it on. Raises PrivilegeError if that is not possible and the filter is strict on any device."""
        try:
            if marks_are_valid():
                return _is_shared(netlink, self.table)
            _valid_mark().write_text("1\n")
        except OSError as error:
            if not filter_is_strict():
                return False
            raise PrivilegeError(
                f"net.ipv4.conf.all.src_valid_mark cannot be set to 1 ({error.strerror}): while rp_filter is strict, "
                "a full tunnel receives nothing from its peers over IPv4 without it. Set it before starting vpntun"
            ) from error
        return True

    def take_back(self, netlink: Netlink) -> None:
        """Switch it off, unless another tunnel has rules that mind marks."""
        if not _is_shared(netlink, self.table):
            _valid_mark().write_text("0\n")


@dataclass(frozen=True)
class LooseFilter:
    """The IPv4 reverse path filter (rp_filter in the kernel's ip-sysctl documentation), set from strict to loose.

    It is made loose where arriving packets cannot be marked. A strict filter drops a packet unless an answer without
    the mark would leave through the device that it came in by. In a full tunnel, that drops everything from the peers.
    The kernel applies the greater of the settings for `all` and for the device, and loose is the greatest.
    Several tunnels share the setting, and the last one to end restores the former one. `table`: this tunnel's.
    """

    former: int
    table: int

    on_device: ClassVar[bool] = False

    def make(self, netlink: Netlink) -> bool:
        """Make it loose if it is strict on any device. Raises PrivilegeError."""
        if not filter_is_strict():
            return _is_shared(netlink, self.table)
        try:
            _filter_of("all").write_text(f"{LOOSE}\n")
        except OSError as error:
            raise PrivilegeError(
                f"net.ipv4.conf.all.rp_filter cannot be set to {LOOSE} ({error.strerror}): while it is strict, a full "
                "tunnel receives nothing from its peers over IPv4. Set it before starting vpntun"
            ) from error
        return True

    def take_back(self, netlink: Netlink) -> None:
        """Restore the former setting, unless another tunnel needs this one or somebody else has changed it."""
        if filter_setting() == LOOSE and not _is_shared(netlink, self.table):
            _filter_of("all").write_text(f"{self.former}\n")


def marks_are_valid() -> bool:
    """Whether the reverse path filter minds marks, as far as can be read."""
    with suppress(OSError):
        return bool(int(_valid_mark().read_text()))
    return False


def filter_setting() -> int:
    """Return the reverse path filter's setting for all devices."""
    return int(_filter_of("all").read_text())


def filter_is_strict() -> bool:
    """Whether the reverse path filter is strict on any device, or would be on the next new one."""
    settings = [int(path.read_text()) for path in CONF.glob("*/rp_filter") if path.parent.name not in ("all", "lo")]
    return STRICT in (max(each, filter_setting()) for each in settings)


def _filter_of(device: str) -> Path:
    return CONF / device / "rp_filter"


def _valid_mark() -> Path:
    return CONF / "all" / "src_valid_mark"


def _is_shared(netlink: Netlink, table: int) -> bool:
    """Whether another tunnel than that of this table has rules of IPv4 that mind marks."""
    others = [rule for rule in netlink.rules(4) if rule.priority in PRIORITIES and rule.mark]
    return any(rule.table not in (*KERNELS_TABLES, table) for rule in others)
