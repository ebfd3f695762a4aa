"""Which links stand, and when that changes: what hooks, systemd and whoever waits for a link are told.

A link stands while a session does (under 180 s old), a path leads to the peer, and of the data sent none has waited
15 s for any sign of life. Nothing is polled: a link is looked at when its control plane has done something, and, while
it stands, when its session becomes too old.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vpntun.crypto.session import REJECT_AFTER_TIME, Session
from vpntun.datapath.link import Link
from vpntun.runtime.loop import Loop


class LinkMonitor:
    """`on_change` is told of each link that stands now, or does not any more."""

    def __init__(self, loop: Loop, on_change: Callable[[Link, bool], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._standing: dict[Link, bool] = {}
        self._timed: set[Link] = set()

    @property
    def summary(self) -> str:
        """How it goes, in one line."""
        monitor, links = sum(self._standing.values()), len(self._standing)
        if links == 1:
            return "connected" if monitor else "not connected"
        return f"{monitor} of {links} peers connected"

    def follow(self, link: Link) -> None:
        """Look at this link from now on."""
        self._standing[link] = False
        link.on_news = partial(self._look, link)

    def forget(self, link: Link) -> None:
        """It is no more, and so it does not stand."""
        link.on_news = lambda: None
        if self._standing.pop(link):
            self._on_change(link, False)

    def _look(self, link: Link) -> None:
        stands = is_up(link)
        if stands != self._standing[link]:
            self._standing[link] = stands
            if stands:
                self._look_again(link)
            self._on_change(link, stands)

    def _look_again(self, link: Link) -> None:
        """When its session will have become too old, unless there is a newer one by then; once, if it flaps."""
        session = link.peer.keys.current
        if session is not None and link not in self._timed:
            self._timed.add(link)
            self._loop.call_later(session.created + REJECT_AFTER_TIME - self._loop.now, lambda: self._expired(link))

    def _expired(self, link: Link) -> None:
        self._timed.remove(link)
        if self._standing.get(link):
            self._look(link)
        if self._standing.get(link):
            self._look_again(link)


def live_session(link: Link) -> Session | None:
    """The session by which packets can leave for the peer, with no sign that they do not arrive, if there is one."""
    peer, now = link.peer, link.now
    return None if link.path is None or peer.timers.is_silent(now) else peer.sending_session(now)


def is_up(link: Link) -> bool:
    """Whether there is such a session."""
    return live_session(link) is not None
