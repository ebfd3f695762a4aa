"""Changes to this host's network: noted in the journal, made in order, taken back in reverse order.

1. A setting that is already as wanted is left alone, and stays at the end.
2. A change to a device that vanishes with this process vanishes too. It is neither noted nor taken back at the end.
3. `undo` takes back everything else. If this process is killed, the next one does it (cleanup.py).
"""

from __future__ import annotations

import errno
from collections.abc import Container, Iterable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from vpntun.errors import DeviceError, VpntunError
from vpntun.netconf.change_kinds import Route
from vpntun.netconf.journal import Entry, Journal
from vpntun.netconf.netlink import Netlink, netlink_error
from vpntun.runtime.log import notice

NO_RIGHT = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


class Change(Protocol):
    """One change: a frozen dataclass whose fields are strings, integers, networks and addresses, for the journal."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    on_device: ClassVar[bool]
    """Whether it concerns the device alone, and so vanishes with it."""

    def make(self, netlink: Netlink) -> bool:
        """Make it. Returns False if that was done already, and so not by this program. Raises VpntunError."""

    def take_back(self, netlink: Netlink) -> None:
        """Restore the former state. May raise if the kernel refuses, for example because the change is gone already."""


class Changes:
    """The changes that one part of the program has made.

    `device_is_ephemeral`: this process made the device, which vanishes with it.
    """

    def __init__(self, journal: Journal | None, *, device_is_ephemeral: bool) -> None:
        self._journal = journal
        self._device_is_ephemeral = device_is_ephemeral
        self._made: dict[Change, None] = {}
        self._found: set[Change] = set()

    def __contains__(self, change: Change) -> bool:
        return change in self._made

    def reconcile(self, wanted: Iterable[Change], netlink: Netlink) -> None:
        """Make the missing changes in this order, then take back the unwanted ones, the last first.

        An unwanted route that another to the same network replaces is taken back just before that one is made.
        Raises VpntunError; then everything is as it was before the call.
        """
        wanted = dict.fromkeys(wanted)
        routes = [each for each in self._made if isinstance(each, Route) and each not in wanted]
        unwanted = {(each.network, each.table): each for each in routes}
        replaced: list[Change] = []
        fresh: list[Change] = []
        try:
            for change in wanted:
                if change in self._made:
                    continue
                if isinstance(change, Route) and (change.network, change.table) in unwanted:
                    replaced.append(unwanted.pop((change.network, change.table)))
                    self._take_back(replaced[-1:], netlink)
                if self._make(change, netlink):
                    fresh.append(change)
        except BaseException:
            self._take_back(fresh, netlink)
            for change in replaced:
                with suppress(VpntunError):  # the upkeep tries again
                    self._make(change, netlink)
            raise
        self._take_back([each for each in self._made if each not in wanted], netlink)

    def make(self, change: Change, netlink: Netlink) -> bool:
        """Make one change, again if others have undone it. Returns False if it is so already. Raises VpntunError.

        What the device had already at the first time, it keeps at the end.
        """
        is_known = change in self._made or change in self._found
        return change.make(netlink) if is_known else self._make(change, netlink)

    def other_than(self, wanted: Container[Change]) -> list[Change]:
        """List the changes that were made and are not wanted, in the order in which to drop them."""
        return [each for each in reversed(self._made) if each not in wanted]

    def drop(self, change: Change, netlink: Netlink) -> None:
        """Take one change back."""
        self._take_back([change], netlink)

    def undo(self) -> None:
        """Take everything back, except what vanishes with the device anyway."""
        lasting = [each for each in self._made if self._outlives(each)]
        if lasting:
            with Netlink() as netlink:
                self._take_back(lasting, netlink)
        self._made.clear()

    def _make(self, change: Change, netlink: Netlink) -> bool:
        journal = self._journal if self._outlives(change) else None
        if journal is not None:
            journal.made(entry_of(change))
        made = False
        try:
            made = change.make(netlink)
        finally:
            if made:
                self._made[change] = None
            elif journal is not None:
                journal.taken_back(entry_of(change))
        if not made and change.on_device:
            self._found.add(change)
        return made

    def _take_back(self, changes: list[Change], netlink: Netlink) -> None:
        refused = 0
        for change in reversed(changes):
            del self._made[change]
            if not take_back(change, netlink):
                refused += 1
            elif self._journal is not None and self._outlives(change):
                self._journal.taken_back(entry_of(change))
        if refused:
            notice(
                "%d changes to this host's network stay: this process no longer has the right to take them back",
                refused,
            )

    def _outlives(self, change: Change) -> bool:
        return not (self._device_is_ephemeral and change.on_device)


def take_back(change: Change, netlink: Netlink) -> bool:
    """Take one change back. Returns False if the right is missing; a change that is gone already is no error."""
    try:
        change.take_back(netlink)
    except netlink_error() as error:
        return error.code not in NO_RIGHT
    except OSError as error:
        return error.errno not in NO_RIGHT
    except DeviceError:
        pass  # the device is gone, and the change with it
    return True


def entry_of(change: Change) -> Entry:
    """Return a change as the journal stores it."""
    facts = {name: value if isinstance(value, int) else str(value) for name, value in asdict(change).items()}
    return {"kind": type(change).__name__, **facts}
