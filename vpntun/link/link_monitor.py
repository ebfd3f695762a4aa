"""Monitor of links, which reports changes of up and down to hooks, systemd and waiting commands.

A link is up while its session is under 180 s old, the peer's endpoint is known, no data that was sent has waited 15 s
for a sign of life, and a vpntun has reported some of what was sent in the last 15 s. Its three states are told apart in
link_states.py. Nothing is polled: a link is checked after the core has decided something for it, when its session
becomes too old, and when the last proof that data arrives does.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.crypto.session import REJECT_AFTER_TIME, Session
from vpntun.link.link import Link
from vpntun.link.link_states import interval_of, proven_at
from vpntun.link.link_summary import Counts, describe_link
from vpntun.runtime.loop import Loop


class LinkObserver(Protocol):
    """Observer of an engine's links."""

    def link_moved(self, link: Link) -> None:
        """Note that the peer is reached at another endpoint now."""

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Note that the link came up, or went down."""

    def states_changed(self, link: Link) -> None:
        """Note that one of the link's three states has changed, or that the link was removed."""


class NoObserver:
    """Observer that does nothing."""

    def link_moved(self, link: Link) -> None:
        """Do nothing."""

    def link_changed(self, link: Link, *, up: bool) -> None:
        """Do nothing."""

    def states_changed(self, link: Link) -> None:
        """Do nothing."""


class LinkMonitor:
    """Monitor that tells the observer of each link that has come up or gone down, or whose states have changed."""

    def __init__(self, loop: Loop, observer: LinkObserver) -> None:
        self._loop = loop
        self._observer = observer
        self._is_up: dict[Link, bool] = {}
        self._timed: set[tuple[Link, str]] = set()
        self._counts = Counts()

    @property
    def summary(self) -> str:
        """The states of all links, in one line."""
        if len(self._is_up) == 1:
            [(link, up)] = self._is_up.items()
            return describe_link(link, is_up=up)
        return str(self._counts)

    def follow(self, link: Link) -> None:
        """Monitor this link from now on."""
        self._is_up[link] = False
        self._counts.links += 1
        self._counts.add(link, 1)

    def forget(self, link: Link) -> None:
        """Stop monitoring a removed link. If it was up, it counts as having gone down."""
        was_up = self._is_up.pop(link, None)
        if was_up is None:
            return
        self._counts.links -= 1
        self._counts.up -= was_up
        self._counts.add(link, -1)
        if was_up:
            self._observer.link_changed(link, up=False)
        self._observer.states_changed(link)

    def look(self, link: Link) -> None:
        """Check a link for which the core has decided something."""
        was_up = self._is_up.get(link)
        if was_up is None:
            return
        have_changed = link.states.differ(link)
        if have_changed:
            self._counts.add(link, -1)
            link.states.look(link)
            self._counts.add(link, 1)
        up = is_up(link)
        if up != was_up:
            self._is_up[link] = up
            self._counts.up += 1 if up else -1
        if have_changed or up != was_up:
            self._look_again(link)
        if up != was_up:
            self._observer.link_changed(link, up=up)
        if have_changed:
            self._observer.states_changed(link)

    def _look_again(self, link: Link) -> None:
        """Check the link again when its session will have become too old, and when the last proof will have."""
        session = link.peer.keys.current
        if session is not None and link.states.handshake_fresh:
            self._at(link, "session", session.created + REJECT_AFTER_TIME)
        if link.states.data_verified:
            self._at(link, "proof", proven_at(link) + interval_of(link))

    def _at(self, link: Link, which: str, moment: float) -> None:
        """Check the link at this moment, unless an earlier check for the same reason is scheduled already."""
        if (link, which) not in self._timed:
            self._timed.add((link, which))
            self._loop.call_later(moment - self._loop.now, lambda: self._expired(link, which))

    def _expired(self, link: Link, which: str) -> None:
        self._timed.remove((link, which))
        if link in self._is_up:
            self.look(link)
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
