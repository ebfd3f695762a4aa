"""Monitor of links, which reports changes of up and down to hooks, systemd and waiting commands.

A link is up while its session is under 180 s old, the peer's endpoint is known, no data that was sent has waited 15 s
for a sign of life, and a vpntun has reported some of what was sent in the last 15 s. Nothing is polled: a link is
checked after the core has decided something for it, and, while it is up, when its session becomes too old.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.crypto.session import REJECT_AFTER_TIME, Session
from vpntun.link.link import Link
from vpntun.runtime.loop import Loop


class LinkObserver(Protocol):
    """Observer of an engine's links."""

    def link_moved(self, link: Link) -> None:
        """Note that the peer is reached at another endpoint now."""

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Note that the link came up, or went down."""


class NoObserver:
    """Observer that does nothing."""

    def link_moved(self, link: Link) -> None:
        """Do nothing."""

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Do nothing."""


class LinkMonitor:
    """Monitor that tells the observer of each link that has come up or gone down."""

    def __init__(self, loop: Loop, observer: LinkObserver) -> None:
        self._loop = loop
        self._observer = observer
        self._is_up: dict[Link, bool] = {}
        self._timed: set[Link] = set()

    @property
    def summary(self) -> str:
        """The state of all links, in one line."""
        up, links = sum(self._is_up.values()), len(self._is_up)
        if links == 1:
            return "connected" if up else "not connected"
        return f"{up} of {links} peers connected"

    def follow(self, link: Link) -> None:
        """Monitor this link from now on."""
        self._is_up[link] = False

    def forget(self, link: Link) -> None:
        """Stop monitoring a removed link. If it was up, it counts as having gone down."""
        if self._is_up.pop(link, False):
            self._observer.link_changed(link, up=False)

    def look(self, link: Link) -> None:
        """Check a link for which the core has decided something."""
        was_up = self._is_up.get(link)
        if was_up is None:
            return
        up = is_up(link)
        if up != was_up:
            self._is_up[link] = up
            if up:
                self._look_again(link)
            self._observer.link_changed(link, up=up)

    def _look_again(self, link: Link) -> None:
        """Check the link again when its session will have become too old, unless that is scheduled already."""
        session = link.peer.keys.current
        if session is not None and link not in self._timed:
            self._timed.add(link)
            self._loop.call_later(session.created + REJECT_AFTER_TIME - self._loop.now, lambda: self._expired(link))

    def _expired(self, link: Link) -> None:
        self._timed.remove(link)
        if self._is_up.get(link):
            self.look(link)
        if self._is_up.get(link):
            self._look_again(link)


def live_session(link: Link) -> Session | None:
    """Return the session in which packets can be sent, if there is one and nothing suggests that they do not arrive."""
    peer, now = link.peer, link.now
    if peer.endpoint is None or peer.timers.is_silent(now) or link.records.nothing_arrives:
        return None
    return peer.sending_session(now)


def is_up(link: Link) -> bool:
    """Return whether a link is up, as the module's docstring defines it."""
    return live_session(link) is not None
