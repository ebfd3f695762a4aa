"""Changes to this host's network: made one by one, taken back the last first, noted in the journal before each.

1. What is as it should be already is left alone, and stays.
2. What lives on a device that goes with this process goes with it: it is not noted, and not taken back at the end.
3. Everything else is taken back by `undo`, or, should this process be killed, by its successor (cleanup.py).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

from vpntun.errors import DeviceError
from vpntun.netconf.journal import Entry, Journal
from vpntun.netconf.netlink import Netlink, netlink_error
from vpntun.runtime.log import notice

NO_RIGHT = frozenset({errno.EPERM, errno.EACCES, errno.EROFS})


class Change(Protocol):
    """One change: a frozen dataclass of texts, numbers, networks and addresses, which is all the journal keeps."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    on_device: ClassVar[bool]
    """Whether it lives on the device, and goes with it."""

    def make(self, netlink: Netlink) -> bool:
        """Make it: False if it is so already, and so not this program's. Raises VpntunError."""

    def take_back(self, netlink: Netlink) -> None:
        """Make it as it was before. What the kernel refuses is gone already, and may raise."""


class Changes:
    """What one part of the program has made. `device_goes`: the device was made here, and goes at the end."""

    def __init__(self, journal: Journal | None, *, device_is_ephemeral: bool) -> None:
        self._journal = journal
        self._device_is_ephemeral = device_is_ephemeral
        self._made: dict[Change, None] = {}

    def __contains__(self, change: Change) -> bool:
        return change in self._made

    def reconcile(self, wanted: Iterable[Change], netlink: Netlink) -> None:
        """Make, in this order, what is missing; then take back, the last first, what is no longer wanted.

        Raises VpntunError; then everything is as it was before the call.
        """
        wanted = dict.fromkeys(wanted)
        fresh: list[Change] = []
        try:
            for change in wanted:
                if change not in self._made and self._make(change, netlink):
                    fresh.append(change)
        except BaseException:
            self._take_back(fresh, netlink)
            raise
        self._take_back([each for each in self._made if each not in wanted], netlink)

    def undo(self) -> None:
        """Take everything back, but what goes with the device anyway."""
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
            notice("%d changes to this host's network stay: there is no right any longer to take them back", refused)

    def _outlives(self, change: Change) -> bool:
        return not (self._device_is_ephemeral and change.on_device)


def take_back(change: Change, netlink: Netlink) -> bool:
    """Take one change back; False where the right is missing. What is gone already is no error."""
    try:
        change.take_back(netlink)
    except netlink_error() as error:
        return error.code not in NO_RIGHT
    except OSError as error:
        return error.errno not in NO_RIGHT
    except DeviceError:
        pass  # the device has gone, and what was on it too
    return True


def entry_of(change: Change) -> Entry:
    """A change as the journal keeps it."""
    facts = {name: value if isinstance(value, int) else str(value) for name, value in asdict(change).items()}
    return {"kind": type(change).__name__, **facts}
