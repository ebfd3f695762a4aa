"""Watch of this host's network: tells its subscribers that links, addresses, routes or rules have changed.

The kernel announces each change to a netlink socket (rtnetlink(7)). The watch discards the announcements and tells only
their kinds, since a subscriber that needs to know more asks the kernel. It tells at once of the first change. Then it
looks away for a quarter of a second, so a host whose containers come and go all the time costs next to nothing, and no
change is missed: what was announced meanwhile still waits at the socket. If more was announced than there is room for,
everything may have changed.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from enum import Flag, auto

from vpntun.errors import VpntunError
from vpntun.runtime.log import NOTICE, Limited, notice
from vpntun.runtime.loop import Loop
from vpntun.runtime.netlink_messages import HEADER, netlink_socket

SECONDS_BETWEEN = 0.25
MOST_READS = 512
"""Announcements read in one turn, at some microseconds each; the default buffer has room for fewer."""


class Changed(Flag):
    """Kinds of changes of this host's network."""

    LINKS = auto()
    ADDRESSES = auto()
    ROUTES = auto()
    RULES = auto()


EVERYTHING = Changed.LINKS | Changed.ADDRESSES | Changed.ROUTES | Changed.RULES
NOTHING = Changed(0)

ANNOUNCEMENTS = {
    **dict.fromkeys((16, 17), Changed.LINKS),  # RTM_NEWLINK, RTM_DELLINK and so on (linux/rtnetlink.h)
    **dict.fromkeys((20, 21), Changed.ADDRESSES),
    **dict.fromkeys((24, 25), Changed.ROUTES),
    **dict.fromkeys((32, 33), Changed.RULES),
}
GROUPS = (1, 5, 7, 8, 9, 11, 19)
"""RTNLGRP_LINK, and IFADDR, ROUTE and RULE of IPv4 and IPv6 (linux/rtnetlink.h)."""


class NetworkWatch:
    """The one watch of a tunnel. Without a netlink socket it tells nothing, and a notice says so."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._subscribers: list[tuple[Changed, Callable[[], None]]] = []
        self._failed = Limited(NOTICE, "a change of this host's network could not be followed: %s")
        self._socket: socket.socket | None = None
        try:
            self._socket = _announcements()
        except OSError as error:
            notice("changes of this host's network will not be noticed: %s", error.strerror)
            return
        self._listen()

    def subscribe(self, kinds: Changed, callback: Callable[[], None]) -> None:
        """Call back, in the loop, after changes of these kinds: at once, and at most four times a second.

        Nothing that the callback raises keeps a change from those who have subscribed after it. An error for the
        operator, or for lack of descriptors, is logged; any other is a bug.
        """
        self._subscribers.append((kinds, callback))

    def since_last_asked(self, kinds: Changed) -> Callable[[], bool]:
        """Return a function that tells whether there were changes of these kinds since its last call."""
        seen = False

        def note() -> None:
            nonlocal seen
            seen = True

        def ask() -> bool:
            nonlocal seen
            answer, seen = seen, False
            return answer

        self.subscribe(kinds, note)
        return ask

    def close(self) -> None:
        """Stop watching."""
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _listen(self) -> None:
        if self._socket is not None:
            self._loop.watch(self._socket.fileno(), self._heard)

    def _heard(self) -> None:
        assert self._socket is not None
        changed = _kinds_waiting(self._socket)
        self._loop.forget(self._socket.fileno())
        self._loop.call_later(SECONDS_BETWEEN, self._listen)
        for kinds, callback in self._subscribers:
            if kinds & changed:
                try:
                    callback()
                except (VpntunError, OSError) as error:
                    self._failed(error)
                except Exception:
                    self._loop.internal_errors.note()


def _announcements() -> socket.socket:
    opened = netlink_socket(socket.NETLINK_ROUTE)
    try:
        opened.bind((0, sum(1 << (group - 1) for group in GROUPS)))
    except OSError:
        opened.close()
        raise
    return opened


def _kinds_waiting(announcements: socket.socket) -> Changed:
    """Read what has been announced, and return the kinds."""
    changed = NOTHING
    for _ in range(MOST_READS):
        try:
            start = announcements.recv(HEADER.size)  # the rest of the announcement is discarded
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                return changed
            changed = EVERYTHING  # announcements were lost for lack of room
        else:
            changed |= ANNOUNCEMENTS.get(HEADER.unpack(start)[1], NOTHING)
    return changed
