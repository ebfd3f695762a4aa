"""Clean-up after a killed process: the changes in its journal are taken back before a new start.

An entry is trusted only if this program can have written it: any interface it names is this one, and all its values are
possible for the kernel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from vpntun.errors import PrivilegeError
from vpntun.netconf.change_kinds import (
    LOOSE,
    PRIORITIES,
    Address,
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
from vpntun.netconf.journal import Entry, entries_of, forget, path_of
from vpntun.netconf.netlink import KERNELS_TABLES, Netlink
from vpntun.netconf.route_plan import EVERYTHING
from vpntun.runtime.log import notice
from vpntun.tun.device import TunDevice
from vpntun.tun.queries import interface_exists

KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (Mtu, Up, Address, Route, OtherRoute, Rule, ValidMark, LooseFilter, NameServers)
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
            TunDevice(interface).close()
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
        case OtherRoute():
            return change.device != interface and change.table not in KERNELS_TABLES and _is_of_one_version(change)
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
