"""States of links in one line, for systemd: of one link with times and reasons, of several links as counts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from vpntun.core.selection.reason import Reason
from vpntun.link.link import Link
from vpntun.link.link_states import proven_at, reason_of_carrier
from vpntun.types import CARRIERS, NEVER


@dataclass
class Counts:
    """Numbers of links: in all, those that are up, and those in each state.

    `carriers`: how many use each carrier; None stands for no carrier.
    """

    links: int = 0
    up: int = 0
    carriers: Counter[str | None] = field(default_factory=Counter)
    fresh: int = 0
    verified: int = 0

    def add(self, link: Link, sign: int) -> None:
        """Count the states of a link; `sign` -1 takes them away again."""
        self.carriers[link.states.carrier] += sign
        self.fresh += sign * link.states.handshake_fresh
        self.verified += sign * link.states.data_verified

    def __str__(self) -> str:
        carriers = [f"{self.carriers[name]} {name.upper()}" for name in CARRIERS if self.carriers[name]]
        return (
            f"{self.up} of {self.links} peers connected; carrier up: {', '.join(carriers) or 0}; "
            f"handshake fresh: {self.fresh}; data verified: {self.verified}"
        )


def describe_link(link: Link, *, is_up: bool, clock: Callable[[], float] = time.time) -> str:
    """Describe the only link. `clock`: the wall clock."""

    def date(moment: float) -> str:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(clock() - (link.now - moment)))

    states, reason = link.states, _reason(reason_of_carrier(link), date)
    if states.carrier is None:
        return f"not connected since {date(states.carrier_since)}: {reason}"
    carrier = f"{states.carrier.upper()} since {date(states.carrier_since)} ({reason})"
    if is_up:
        return f"connected by {carrier}, {_data(link, date)}"
    if states.handshake_fresh:
        return f"not connected, though by {carrier} the handshake is fresh: {_data(link, date)}"
    return f"not connected: no fresh handshake since {date(states.handshake_since)}, by {carrier}"


def _reason(reason: Reason, date: Callable[[float], str]) -> str:
    return reason.text if reason.since is None else f"{reason.text} since {date(reason.since)}"


def _data(link: Link, date: Callable[[float], str]) -> str:
    if link.states.data_verified:
        return "data verified"
    proven = proven_at(link)
    return "data not verified" if proven == -NEVER else f"data last verified {date(proven)}"
