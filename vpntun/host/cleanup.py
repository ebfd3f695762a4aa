"""What a killed process left on this host is taken away, as its journal says, before anything new is set up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

from vpntun.errors import PrivilegeError
from vpntun.host.changes import Change, take_back
from vpntun.host.device import TunDevice, interface_exists
from vpntun.host.dns import NameServers
from vpntun.host.journal import Entry, entries_of, forget, path_of
from vpntun.host.log import notice
from vpntun.host.netlink import Netlink
from vpntun.host.steps import Address, LooseFilter, Mtu, Route, Rule, Up

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (Mtu, Up, Address, Route, Rule, LooseFilter, NameServers)}


def clean_up(interface: str, folder: Path | None = None) -> bool:
    """Take back what is in the journal of an interface that nobody runs; False if there is nothing.

    A journal that is not to be trusted, and an entry that makes no sense, is passed over with a notice. Raises
    DeviceError where another process holds the device after all, and PrivilegeError where the right to take things back
    is missing; the journal stays then.
    """
    path = path_of(interface, folder)
    entries = entries_of(path)
    changes = [change for change in map(change_of, entries) if change is not None]
    if len(changes) < len(entries):
        notice(
            "%s: %d of its entries are of no kind that is known, and are passed over", path, len(entries) - len(changes)
        )
    if changes:
        if interface_exists(interface):
            TunDevice(interface).close()
        with Netlink() as netlink:
            refused = [change for change in reversed(changes) if not take_back(change, netlink)]
        if refused:
            raise PrivilegeError(
                f"a killed vpntun has left changes to this host's network, which this user may not take back: be root, "
                f"or remove {path} to leave them"
            )
        notice("took away what a killed vpntun had left: %d changes to this host's network", len(changes))
    forget(path)
    return bool(changes)


def change_of(entry: Entry) -> Change | None:
    """The change that the journal keeps as this entry, or None for what is none."""
    kind = KINDS.get(str(entry.get("kind")))
    fields = dataclasses.fields(kind) if kind is not None else ()
    if kind is None or entry.keys() != {"kind", *(field.name for field in fields)}:
        return None
    try:
        change: Change = kind(**{field.name: READERS[str(field.type)](entry[field.name]) for field in fields})
    except ValueError:
        return None
    return change


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError
    return value


READERS: dict[str, Callable[[object], object]] = {
    "str": _text,
    "int": _number,
    "Network": lambda value: ip_network(_text(value)),
    "Interface": lambda value: ip_interface(_text(value)),
}
