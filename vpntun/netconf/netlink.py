"""Netlink sockets that read and change the kernel's network settings, open only while they are used.

Lists are read by rtnetlink.py. pyroute2 makes the changes; it is imported only when it is used, since it takes more
memory than the rest of the program together.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple, TypeVar

from vpntun.errors import DeviceError, PrivilegeError
from vpntun.netconf.rtnetlink import Interrupted, Message, Questions
from vpntun.runtime.netlink_messages import attributes_in
from vpntun.types import Network

AF_UNSPEC, AF_INET, AF_INET6 = 0, 2, 10
MAIN = 254
KERNELS_TABLES = frozenset({0, 253, 254, 255})
"""None, default, main and local."""
ANY = {4: bytes(4), 6: bytes(16)}
MOST_TRIES = 20
SECONDS_BETWEEN_TRIES = 0.01

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE = 18, 22, 26, 34
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_EXT_MASK = 1, 3, 4, 10, 18, 26, 29
IFLA_INET6_CONF, DEVCONF_DISABLE_IPV6 = 2, 26
IFLA_INFO_KIND = 1
WITHOUT_STATISTICS = ((IFLA_EXT_MASK, struct.pack("=I", 1 << 3)),)
IFF_UP, IFF_NOARP, IFF_LOWER_UP = 0x1, 0x80, 0x10000
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_PREFSRC, RTA_TABLE = 1, 4, 7, 15
RTN_UNICAST = 1
RTM_F_CLONED = 0x200
FRA_DST, FRA_PRIORITY, FRA_FWMARK, FRA_SUPPRESS_PREFIXLEN, FRA_TABLE, FRA_FWMASK = 1, 6, 10, 14, 15, 16
FIB_RULE_INVERT = 0x2
OUR_ATTRIBUTES = frozenset({1, 6, 10, 14, 15, 16, 18, 21})
"""Those above, padding, and FRA_PROTOCOL; with any other a rule is not like this program's."""

TUNNELS = frozenset({"tun", "wireguard", "ovpn", "ovpn-dco", "xfrm", "vti", "vti6", "ipip", "gre"})
"""Kinds of devices. With ARP, as TAP devices have it, one may also be an uplink. sit and ip6tnl often are."""

NO_SUPPRESSION = ALL_BITS = 0xFFFFFFFF

_LINK = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ADDRESS = struct.Struct("=BBxxI")  # family, prefix length, index
_ROUTE = struct.Struct("=BBxxBxxBI")  # family, prefix length, table, type, flags
_RULE = struct.Struct("=BBxxBxxBI")  # family, prefix length, table, action, flags
_u32 = struct.Struct("=I")

Found = TypeVar("Found")


class InterfaceAddress(NamedTuple):
    """An address of a device, and its network; on a point-to-point device, the network of the other end's address."""

    device: str
    address: str
    network: Network

    @property
    def is_somewhere_else(self) -> bool:
        """Whether the network has any address besides this one."""
        return str(self.network.network_address) != self.address or self.network.num_addresses > 1


class Link(NamedTuple):
    """A device. `kind`: the kernel's word for a virtual device, such as tun, wireguard or veth; "" for others.

    `has_ipv6`: whether the kernel carries IPv6 on it, which it does not if the MTU is too small. `master`: the number
    of the bridge or other device that it belongs to, 0 for none. `mac`: its MAC address; b"" if it has none.
    """

    number: int
    name: str
    flags: int
    mtu: int
    kind: str
    has_ipv6: bool = True
    master: int = 0
    mac: bytes = b""

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up."""
        return bool(self.flags & IFF_UP)

    @property
    def has_carrier(self) -> bool:
        """Whether the device can carry packets; a TUN device cannot while no program has it open."""
        return bool(self.flags & IFF_LOWER_UP)

    @property
    def leads_to_a_tunnel(self) -> bool:
        """Whether it is the device of a tunnel of IP packets, on which nobody hands out routes by DHCP."""
        return self.kind in TUNNELS and bool(self.flags & IFF_NOARP)


class FoundRoute(NamedTuple):
    """A route in the kernel. `device`: the number of its device, 0 if it has none or several.

    `source`: the address to send from, "" for the kernel's choice.
    """

    network: Network
    table: int
    device: int
    source: str


class FoundRule(NamedTuple):
    """A policy rule in the kernel, as far as this program makes such rules.

    `mark`: the mark that it selects by, 0 for none. `to`: the network that the packets go to, "" for any. `shortest`:
    the prefix length below which routes in the table do not count. `is_like_ours`: it selects packets without the mark,
    and by nothing else.
    """

    version: int
    priority: int
    action: int
    table: int
    mark: int
    to: str
    shortest: int
    is_like_ours: bool


class Netlink(AbstractContextManager["Netlink"]):
    """Netlink sockets for questions and changes, open from the first use on until `close`.

    Lists that change while they are read are read again, `MOST_TRIES` times at most; the last is used in any case.
    Raises DeviceError if no socket can be opened.
    """

    def __init__(self) -> None:
        try:
            self._questions = Questions()
        except OSError as error:
            raise _no_socket(error) from error
        self._requests: Any = None

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._questions.close()
        if self._requests is not None:
            self._requests.close()

    @property
    def requests(self) -> Any:
        """pyroute2's object for changes. Raises DeviceError if there is no room for its sockets."""
        if self._requests is None:
            from pyroute2 import IPRoute

            try:
                self._requests = IPRoute()
            except OSError as error:
                raise _no_socket(error) from error
        return self._requests

    def open_for_changes(self) -> None:
        """Open what changes need now, for a process that may be out of descriptors later. Raises DeviceError."""
        self.requests  # noqa: B018

    def index_of(self, device: str) -> int:
        """Return the kernel's number of a device. Raises DeviceError if there is no such device."""
        try:
            return self._questions.index_of(device)
        except OSError:
            raise DeviceError(f"the device {device} is gone: it was deleted; start again") from None

    def link(self, device: str) -> Link:
        """Return the kernel's description of a device. Raises DeviceError if there is no such device."""
        body = _LINK.pack(AF_UNSPEC, 0, self.index_of(device), 0, 0)
        return _link_in(self._questions.ask(RTM_GETLINK, body, WITHOUT_STATISTICS))

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

    def links(self) -> Iterator[Link]:
        """Yield all devices. The iterator raises OSError, or Interrupted at the end."""
        return links_by(self._questions)

    def found_addresses(self, names: Mapping[int, str]) -> Iterator[InterfaceAddress]:
        """Yield this host's addresses; `names`: the devices' by number. Raises OSError, or Interrupted at the end."""
        for body, found in self._questions.dump(RTM_GETADDR, bytes(8)):
            family, length, index = _ADDRESS.unpack(body)
            other = found.get(IFA_ADDRESS, b"")
            own = found.get(IFA_LOCAL, other)
            if family in (AF_INET, AF_INET6) and other:
                yield InterfaceAddress(names.get(index, ""), _text_of(own), _network_of(other, length))

    def found_routes(self, version: int, table: int, index: int = 0) -> Iterator[FoundRoute]:
        """Yield the unicast routes in a table, through one device or all. Raises OSError, or Interrupted at the end."""
        wanted = [(RTA_TABLE, _u32.pack(table))]
        if index:
            wanted.append((RTA_OIF, _u32.pack(index)))
        body = _ROUTE.pack(family_of(version), 0, 0, 0, 0)
        for head, found in self._questions.dump(RTM_GETROUTE, body, wanted):
            family, length, short_table, kind, flags = _ROUTE.unpack(head)
            number = _number_in(found, RTA_TABLE) or short_table
            device = _number_in(found, RTA_OIF)
            is_wanted = number == table and (not index or device == index) and family == family_of(version)
            if is_wanted and kind == RTN_UNICAST and not flags & RTM_F_CLONED:
                source = _text_of(found[RTA_PREFSRC]) if RTA_PREFSRC in found else ""
                yield FoundRoute(_network_of(found.get(RTA_DST) or ANY[version], length), number, device, source)

    def found_rules(self, version: int) -> Iterator[FoundRule]:
        """Yield the policy rules of an IP version. Raises OSError, or Interrupted at the end."""
        for body, found in self._questions.dump(RTM_GETRULE, _RULE.pack(family_of(version), 0, 0, 0, 0)):
            family, length, short_table, action, flags = _RULE.unpack(body)
            if family == family_of(version):
                suppressed = _number_in(found, FRA_SUPPRESS_PREFIXLEN, NO_SUPPRESSION)
                mark = _number_in(found, FRA_FWMARK)
                yield FoundRule(
                    version,
                    _number_in(found, FRA_PRIORITY),
                    action,
                    _number_in(found, FRA_TABLE) or short_table,
                    mark,
                    str(_network_of(found[FRA_DST], length)) if FRA_DST in found else "",
                    0 if suppressed == NO_SUPPRESSION else suppressed + 1,
                    bool(flags & FIB_RULE_INVERT) == bool(mark)
                    and _number_in(found, FRA_FWMASK, ALL_BITS) == ALL_BITS
                    and found.keys() <= OUR_ATTRIBUTES,
                )

    def routes(self, version: int, table: int, device: str | None = None) -> list[Network]:
        """List the destinations of the routes in a table, through one device or all."""
        index = self.index_of(device) if device is not None else 0
        return [each.network for each in whole(lambda: self.found_routes(version, table, index))]

    def rules(self, version: int) -> list[FoundRule]:
        """List the policy rules of an IP version."""
        return whole(lambda: self.found_rules(version))

    def all_rules(self) -> list[FoundRule]:
        """List the policy rules of both IP versions."""
        return [*self.rules(4), *self.rules(6)]

    def addresses(self) -> list[InterfaceAddress]:
        """List this host's addresses, each with the network that it makes reachable."""
        names = {link.number: link.name for link in whole(self.links)}
        return whole(lambda: self.found_addresses(names))


def links_by(questions: Questions) -> Iterator[Link]:
    """Yield all devices. Raises OSError, or Interrupted at the end."""
    for message in questions.dump(RTM_GETLINK, _LINK.pack(AF_UNSPEC, 0, 0, 0, 0), WITHOUT_STATISTICS):
        yield _link_in(message)


def whole(read: Callable[[], Iterator[Found]]) -> list[Found]:
    """Read a list, again if it has changed meanwhile. Raises OSError."""
    for _ in range(MOST_TRIES):
        found: list[Found] = []
        try:
            found.extend(read())
            break
        except Interrupted:
            time.sleep(SECONDS_BETWEEN_TRIES)
    return found


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


def _no_socket(error: OSError) -> DeviceError:
    return DeviceError(f"this host's network settings cannot be read or changed: {error.strerror}")


def _link_in(message: Message) -> Link:
    body, found = message
    _, _, index, flags, _ = _LINK.unpack(body)
    kind = _nested(found.get(IFLA_LINKINFO, b"")).get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode("ascii", "replace")
    name = os.fsdecode(found.get(IFLA_IFNAME, b"").rstrip(b"\0"))
    settings = _nested(_nested(found.get(IFLA_AF_SPEC, b"")).get(AF_INET6, b"")).get(IFLA_INET6_CONF, b"")
    disabled = settings[4 * DEVCONF_DISABLE_IPV6 :][:4]
    return Link(
        index,
        name,
        flags,
        _number_in(found, IFLA_MTU),
        kind,
        bool(disabled) and not any(disabled),
        _number_in(found, IFLA_MASTER),
        found.get(IFLA_ADDRESS, b""),
    )


def _nested(attributes: bytes) -> dict[int, bytes]:
    return attributes_in(attributes, 0, len(attributes))


def _number_in(found: Mapping[int, bytes], kind: int, default: int = 0) -> int:
    value = found.get(kind)
    return int(_u32.unpack(value)[0]) if value is not None else default


@functools.lru_cache(maxsize=4096)
def _text_of(address: bytes) -> str:
    return str(ip_address(address))


@functools.lru_cache(maxsize=4096)
def _network_of(address: bytes, length: int) -> Network:
    return ip_network((address, length), strict=False)
