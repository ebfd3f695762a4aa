"""Clean-up after a killed process, before a new start and by 'vpntun down'.

The changes in its journal are taken back. An entry is trusted only if this program can have written it: any interface
it names is this one, and all its values are possible for the kernel.

A journal may be missing, since the file system was full, say. So rules of a vpntun, known by their priority and shape,
are removed as well if nobody needs them: no attached device is behind their table, and no other interface's journal
names it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.netconf.change_kinds import (
    LOOSE,
    MERGED,
    PRIORITIES,
    Address,
    GatewayRoute,
    LooseFilter,
    Mtu,
    OtherRoute,
    Route,
    Rule,
    Up,
    ValidMark,
)
from vpntun.netconf.changes import Change, take_back
from vpntun.netconf.dns import NameServers, entry_for
from vpntun.netconf.ethernet_kinds import BridgePort, Mac
from vpntun.netconf.journal import Entry, entries_of, forget, interfaces_in, path_of
from vpntun.netconf.netlink import KERNELS_TABLES, FoundRoute, FoundRule, Link, Netlink, whole
from vpntun.netconf.route_plan import CLOSED, EVERYTHING, TUNNEL, is_of_a_vpntun
from vpntun.runtime.log import notice
from vpntun.tun.device import KernelDevice
from vpntun.tun.opening import check_name
from vpntun.tun.queries import interface_exists, kind_of
from vpntun.wire.ethernet.mac import mac_text, parse_mac

KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Mtu, Up, Address, Mac, BridgePort),
        *(Route, GatewayRoute, OtherRoute, Rule, ValidMark, LooseFilter, NameServers),
    )
}


def clean_up(interface: str, folder: Path | None = None) -> bool:
    """Take back the changes in the journal of an interface that no process runs. Returns False if there are none.

    A journal that cannot be trusted, or an entry that cannot belong to this interface, is ignored with a notice. Raises
    DeviceError if a process has the device open after all, and PrivilegeError if the right to take the changes back is
    missing; then the journal stays.
    """
    path = path_of(interface, folder)
    entries = entries_of(path)
    changes = [change for entry in entries if (change := change_of(entry, interface)) is not None]
    if len(changes) < len(entries):
        notice("%s: ignored %d entries that cannot belong to %s", path, len(entries) - len(changes), interface)
    if changes:
        if interface_exists(interface):
            KernelDevice(interface, kind_of(interface) or "tun").close()
        with Netlink() as netlink:
            refused = [change for change in reversed(changes) if not take_back(change, netlink)]
        if refused:
            raise PrivilegeError(
                f"a killed vpntun has left changes to this host's network, which this user may not take back: run as "
                f"root, or remove {path} to keep the changes"
            )
        notice("took back what a killed vpntun had left: %d changes to this host's network", len(changes))
    forget(path)
    return bool(changes)


def remove_leftovers(interface: str, folder: Path | None = None) -> bool:
    """Remove the rules of killed tunnels that no journal of another interface names. Returns False if there are none.

    The routes in their tables are removed as well. Raises OSError, or DeviceError without a netlink socket. If the
    right is missing, they stay.
    """
    claimed = {rule for name in others_of(interface, folder) for rule in rules_of(name, folder)}
    with Netlink() as netlink:
        links = {link.number: link for link in whole(netlink.links)}
        dead = [change for version in (4, 6) for change in _dead_changes(netlink, links, version, claimed)]
        left = sum(not take_back(change, netlink) for change in dead)
    if left < len(dead):
        notice("removed what a killed vpntun had left: %d rules and routes", len(dead) - left)
    return left < len(dead)


def others_of(interface: str, folder: Path | None = None) -> list[str]:
    """List the other interfaces of this network namespace that have a journal."""
    return [each for each in interfaces_in(path_of(interface, folder).parent) if each != interface]


def changes_of(interface: str, folder: Path | None = None) -> list[Change]:
    """List the changes in the journal of an interface, without what cannot belong to it."""
    changes = [change_of(entry, interface) for entry in entries_of(path_of(interface, folder))]
    return [change for change in changes if change is not None]


def rules_of(interface: str, folder: Path | None = None) -> list[Rule]:
    """List the rules in the journal of an interface."""
    return [change for change in changes_of(interface, folder) if isinstance(change, Rule)]


def _dead_changes(
    netlink: Netlink, links: Mapping[int, Link], version: int, claimed: Collection[Rule]
) -> Iterator[Change]:
    """Yield what killed tunnels have left of one IP version: routes, then rules. `links`: the devices by number."""
    rules = [rule for rule in netlink.rules(version) if is_of_a_vpntun(rule)]
    full = {rule.table for rule in rules if rule.priority == TUNNEL}
    living = {rule.table for rule in claimed} - KERNELS_TABLES
    routes: dict[int, list[FoundRoute]] = {}
    for table in {rule.table for rule in rules if rule.mark} - KERNELS_TABLES:
        routes[table] = whole(functools.partial(netlink.found_routes, version, table))
        if _is_attached(table in full, routes[table], links):
            living.add(table)
    dead = [rule for rule in _dead_rules(rules, routes, living) if rule not in claimed]
    for table in {rule.table for rule in dead} & routes.keys():
        for route in routes[table]:
            link = links.get(route.device)
            if link is not None and link.leads_to_a_tunnel:
                yield Route(link.name, route.network, table)
    yield from dead


def _is_attached(is_full: bool, routes: Iterable[FoundRoute], links: Mapping[int, Link]) -> bool:
    """Whether a program has the device of a table open. A full tunnel's other routes may be those of other tunnels."""
    counting = [links.get(route.device) for route in routes if not is_full or not route.network.prefixlen]
    return any(link is not None and link.has_carrier for link in counting)


def _dead_rules(rules: Collection[FoundRule], tables: Collection[int], living: Collection[int]) -> Iterator[Rule]:
    """Yield the rules of one IP version that belong to none of the living tables.

    A full tunnel without its last rule blocks nothing, and may be the operator's work.
    """
    is_closed = any(rule.priority == CLOSED for rule in rules)
    full_is_dead = is_closed and not any(rule.table in living for rule in rules if rule.priority < MERGED)
    marks = {rule.mark for rule in rules if rule.table in living}
    for rule in rules:
        if rule.priority < MERGED:
            is_dead = full_is_dead
        elif rule.table in tables:
            is_dead = rule.table not in living
        else:
            is_dead = rule.mark not in marks
        if is_dead:
            yield Rule(rule.version, rule.priority, rule.table, rule.mark, rule.to, rule.shortest)


def change_of(entry: Entry, interface: str) -> Change | None:
    """Return the change that an entry of this interface's journal stands for, or None if it is not one."""
    name = entry.get("kind")
    kind = KINDS.get(name) if isinstance(name, str) else None
    fields = dataclasses.fields(kind) if kind is not None else ()
    if kind is None or entry.keys() != {"kind", *(field.name for field in fields)}:
        return None
    try:
        change: Change = kind(**{field.name: READERS[str(field.type)](entry[field.name]) for field in fields})
        return change if _can_be_of(interface, change) else None
    except ValueError:
        return None


def _can_be_of(interface: str, change: Change) -> bool:
    """Whether this interface's tunnel can have made the change. Raises ValueError for a bad network or address."""
    match change:
        case Mtu() | Up() | Address():
            return change.device == interface
        case Mac():
            return change.device == interface and all(map(_is_mac, (change.former, change.mac)))
        case BridgePort():
            return change.device == interface and _can_be_a_name(change.bridge)
        case OtherRoute():
            return change.device != interface and change.table not in KERNELS_TABLES and _is_of_one_version(change)
        case GatewayRoute():
            gateway = ip_address(_address(change.gateway))
            return change.device == interface and gateway.version == change.network.version and not change.source
        case Route():
            return change.device == interface and _is_of_one_version(change)
        case Rule():
            network = ip_network(_address(change.to)) if change.to else EVERYTHING.get(change.version)
            return (
                network is not None
                and network.version == change.version
                and change.to in ("", str(network))
                and change.priority in PRIORITIES
                and change.shortest <= network.max_prefixlen
            )
        case ValidMark():
            return True
        case LooseFilter():
            return change.former < LOOSE
        case NameServers():
            return change.entry == entry_for(interface)
    return False


def _is_mac(text: str) -> bool:
    """Whether a text is the address of one station, as this program writes it."""
    try:
        return mac_text(parse_mac(text)) == text
    except ConfigurationError:
        return False


def _can_be_a_name(name: str) -> bool:
    try:
        check_name(name)
    except ConfigurationError:
        return False
    return True


def _is_of_one_version(route: Route) -> bool:
    """Whether the source address fits the network. Raises ValueError for a bad one."""
    return not route.source or ip_address(_address(route.source)).version == route.network.version


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _address(value: object) -> str:
    text = _text(value)
    if "%" in text:  # a scope, which no change's address has
        raise ValueError
    return text


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise ValueError
    return value


READERS: dict[str, Callable[[object], object]] = {
    "str": _text,
    "int": _number,
    "Network": lambda value: ip_network(_address(value)),
    "Interface": lambda value: ip_interface(_address(value)),
}
