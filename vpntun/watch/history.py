"""History of tunnels: successive statuses become rates, recent drops and series of values, peer by peer.

1. `TunnelHistory.take` gets each status that a tunnel answers (docs/control.rst). A rate is the growth of a counter
   between two statuses, divided by the time between them on the tunnel's own clock. How long an answer took on its way
   makes no difference.
2. `TunnelHistory.view` returns what is known at a moment. It is complete: whoever draws it keeps nothing.

A restart of the tunnel leaves a gap in each series, and no rate is computed across it. Neither is one across a counter
that has decreased, as it does where a peer was removed and added again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vpntun.crypto.keys import shortened

LONGEST = 400
"""Values in a series: one for each column of a very wide terminal."""
RECENT = 10
"""Statuses: what was dropped since this many is shown as new, and their rates decide the order of the peers."""

Series = tuple["float | None", ...]


@dataclass(frozen=True)
class Drop:
    """Packets dropped for one reason: all of them, and how many of them are new."""

    reason: str
    total: int
    new: int


@dataclass(frozen=True)
class PeerView:
    """One peer at one moment. Rates are in bytes per second, times in seconds; None is unknown.

    `verified`: whether data is known to arrive. `carrier_up`: whether messages can be sent, which has been so for
    `carrier_for`. `reason`: why this carrier is used, or why there is none; it has lasted for `reason_for`. A tunnel of
    an older version tells none of these.
    """

    label: str
    state: str
    unresolved: str | None
    verified: bool | None
    carrier: str | None
    carrier_up: bool | None
    carrier_for: float | None
    reason: str | None
    reason_for: float | None
    endpoint: str | None
    down: float | None
    up: float | None
    downs: Series
    ups: Series
    round_trip: float | None
    round_trips: Series
    loss: float | None
    handshake_age: float | None
    queued_packets: int
    queued_bytes: int
    drops: tuple[Drop, ...]

    @property
    def traffic(self) -> float:
        """The sum of the recent rates, by which peers are sorted."""
        return sum(rate or 0.0 for series in (self.downs, self.ups) for rate in series[-RECENT:])


@dataclass(frozen=True)
class TunnelView:
    """One tunnel at one moment. `trouble`: why it does not answer, None while it does.

    `uptime` and `peers` are those of the last answer. Without any answer there are none. While the tunnel does not
    answer, the state of each peer is "unknown", and so are its rates. `open_connections`: those of all forwards.
    """

    interface: str
    trouble: str | None
    starting: str | None
    addresses: tuple[str, ...]
    port: int | None
    mtu: int | None
    is_tap: bool
    uptime: float | None
    drops: tuple[Drop, ...]
    forwards: int
    open_connections: int
    peers: tuple[PeerView, ...]


class DropHistory:
    """The latest counters of drops."""

    def __init__(self) -> None:
        self._counts: deque[Mapping[str, int]] = deque(maxlen=RECENT + 1)

    def take(self, counts: Mapping[str, int]) -> None:
        """Take the counters of one status."""
        if self._counts and any(counts.get(reason, 0) < count for reason, count in self._counts[-1].items()):
            self._counts.clear()
        self._counts.append(dict(counts))

    def view(self) -> tuple[Drop, ...]:
        """Return the drops, first those that have changed most."""
        if not self._counts:
            return ()
        before, now = self._counts[0], self._counts[-1]
        drops = [Drop(reason, total, total - before.get(reason, 0)) for reason, total in now.items() if total]
        return tuple(sorted(drops, key=lambda drop: (-drop.new, -drop.total, drop.reason)))


class PeerHistory:
    """Counters and series of one peer."""

    def __init__(self) -> None:
        self._status: Mapping[str, Any] = {}
        self._counters: tuple[int, int] | None = None
        self._downs: deque[float | None] = deque(maxlen=LONGEST)
        self._ups: deque[float | None] = deque(maxlen=LONGEST)
        self._round_trips: deque[float | None] = deque(maxlen=LONGEST)
        self._drops = DropHistory()

    def take(self, peer: Mapping[str, Any], seconds: float | None) -> None:
        """Take the peer's part of a status, `seconds` after the last one; None: nothing can be compared with it."""
        counters = peer["received_bytes"], peer["sent_bytes"]
        down = up = None
        if seconds is not None and self._counters is not None:
            grown = [now - before for now, before in zip(counters, self._counters, strict=True)]
            if min(grown) >= 0:
                down, up = (each / seconds for each in grown)
        self._status, self._counters = peer, counters
        self._downs.append(down)
        self._ups.append(up)
        self._round_trips.append(peer["round_trip"])
        self._drops.take(peer["drops"])

    def view(self) -> PeerView:
        """Return the peer as of the last status."""
        peer = self._status
        return PeerView(
            label=peer["name"] or shortened(peer["public_key"]),
            state=peer["state"],
            unresolved=peer["unresolved"],
            verified=peer.get("data_verified"),
            carrier=peer["carrier"],
            carrier_up=peer.get("carrier_up"),
            carrier_for=peer.get("carrier_up_for"),
            reason=peer.get("carrier_reason"),
            reason_for=peer.get("carrier_reason_for"),
            endpoint=peer["endpoint"],
            down=self._downs[-1],
            up=self._ups[-1],
            downs=tuple(self._downs),
            ups=tuple(self._ups),
            round_trip=peer["round_trip"],
            round_trips=tuple(self._round_trips),
            loss=peer["loss"],
            handshake_age=peer["latest_handshake_age"],
            queued_packets=peer["queue"]["packets"],
            queued_bytes=peer["queue"]["bytes"],
            drops=self._drops.view(),
        )


class TunnelHistory:
    """Statuses of one tunnel, and the times when it did not answer.

    `now` is the time of the watching program, by a clock that nobody sets. `patience`: after so many seconds without an
    answer the tunnel counts as silent.
    """

    def __init__(self, interface: str, now: float, patience: float) -> None:
        self._interface = interface
        self._patience = patience
        self._answered = now
        self._trouble: str | None = None
        self._status: Mapping[str, Any] | None = None
        self._peers: dict[str, PeerHistory] = {}
        self._drops = DropHistory()

    def take(self, status: Mapping[str, Any], now: float) -> None:
        """Take a status that the tunnel has answered."""
        self._answered, self._trouble = now, None
        seconds = self._seconds_since_last(status)
        if seconds == 0:
            return
        self._status = status
        known, self._peers = self._peers, {}
        for peer in status["peers"]:
            key = peer["public_key"]
            self._peers[key] = known.get(key) or PeerHistory()
            self._peers[key].take(peer, seconds)
        self._drops.take(status["drops"])

    def note_trouble(self, trouble: str) -> None:
        """Take the reason why the tunnel does not answer, for the operator. The next status ends it."""
        self._trouble = trouble

    def view(self, now: float) -> TunnelView:
        """Return what is known of the tunnel at this moment."""
        status = self._status or {}
        trouble = self._trouble or self._silence(now - self._answered)
        peers = (peer.view() for peer in self._peers.values())
        forwards = status.get("forwards", ())
        return TunnelView(
            interface=self._interface,
            trouble=trouble,
            starting=status.get("starting"),
            addresses=tuple(status.get("addresses", ())),
            port=status.get("listen_port"),
            mtu=status.get("mtu"),
            is_tap=status.get("device") == "tap",
            uptime=status.get("uptime"),
            drops=self._drops.view(),
            forwards=len(forwards),
            open_connections=sum(each["connections"] for each in forwards),
            peers=tuple(peers if trouble is None else map(_of_the_past, peers)),
        )

    def _silence(self, seconds: float) -> str | None:
        return f"no answer for {seconds:.0f} s: is it suspended?" if seconds > self._patience else None

    def _seconds_since_last(self, status: Mapping[str, Any]) -> float | None:
        """Return the time since the last status by the tunnel's own clock; None if another process answered then."""
        if self._status is None or self._status["pid"] != status["pid"]:
            return None
        return max(0.0, _clock(status) - _clock(self._status))


def _of_the_past(peer: PeerView) -> PeerView:
    """Return a peer whose tunnel does not answer: what it was like may no longer be so."""
    return replace(peer, state="unknown", unresolved=None, verified=None, carrier_up=None, down=None, up=None)


def _clock(status: Mapping[str, Any]) -> float:
    """Return the tunnel's clock in a status. A tunnel of an older version tells whole seconds alone."""
    return float(status.get("clock", status["uptime"]))
