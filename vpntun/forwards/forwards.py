"""Table of a tunnel's forwards: those of its file, which follow a reload, and those that requests have added.

    begin       serves what has connected so far, and everybody from then on: after privileges are given up, since the
                threads that look names up would keep them
    expose      adds a forward; it listens when the call returns
    unexpose    removes one, whoever has added it; a forward of the file is back after the next reload
    reconcile   makes the forwards of the file match it, at the start and at a reload: all of them, or none is changed

A removed forward accepts nothing any more. Connections that are being passed on go on until they end, as with
`ssh -O cancel`; flows of datagrams end at once. A forward with another target keeps listening, and uses that target for
new connections.

Where a forward listens and where its target is depends on its origin (`Way`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpntun.config.forwards import Forward, ForwardProtocol, Key, Listening, Origin, ServiceName, Target, spelled
from vpntun.errors import ConfigurationError, ForwardExists, NoSuchForward, PortInUse, VpntunError
from vpntun.forwards.connecting import OnConnected, OnFailed, connect
from vpntun.forwards.connections import Connections
from vpntun.forwards.datagrams import DatagramForward
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.streams import Attempt, StreamForward
from vpntun.forwards.ways import Way, Ways
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop

Visit = Callable[[ServiceName, OnConnected, OnFailed], Attempt | None]
"""Connect to a service that a peer offers; the loop calls one of the two."""


@dataclass
class _Entry:
    """A forward that listens. `is_of_file`: whether the file has it; `since`: when it was opened (the loop's clock)."""

    running: StreamForward | DatagramForward
    is_of_file: bool
    since: float

    @property
    def forward(self) -> Forward:
        return self.running.forward


class Forwards:
    """The forwards of one tunnel. `ways`: the origins that it can have; `visit`: None if it reaches no services."""

    def __init__(
        self,
        loop: Loop,
        ways: Ways,
        *,
        visit: Visit | None = None,
        connections: Connections | None = None,
    ) -> None:
        self._loop = loop
        self._ways = ways
        self._visit = visit
        self._connections = connections or Connections(loop)
        self._entries: dict[Key, _Entry] = {}
        self._has_begun = False

    def begin(self) -> None:
        """Serve whoever connects. Until then the forwards only listen."""
        self._has_begun = True
        for entry in self._entries.values():
            entry.running.begin()

    def expose(self, forward: Forward) -> None:
        """Add a forward, which listens from now on.

        Raises ForwardExists, ConfigurationError, PortInUse, PrivilegeError or VpntunError.
        """
        if forward.key in self._entries:
            raise self._exists(forward)
        self._entries[forward.key] = self._open(forward, is_of_file=False)

    def unexpose(self, protocol: ForwardProtocol, listen: Listening, origin: Origin = "here") -> None:
        """Remove a forward. Raises NoSuchForward."""
        entry = self._entries.pop((protocol, listen, origin), None)
        if entry is None:
            came_from = "" if origin == "here" else f" from {origin}"
            raise NoSuchForward(
                f"no forward listens on {protocol} {spelled(listen)}{came_from}: 'vpntun forwards' lists them; give "
                "unexpose the same --udp and --from as expose"
            )
        entry.running.close()

    def reconcile(self, wanted: Iterable[Forward]) -> None:
        """Make the forwards of the file match those that it has now. Raises as `expose`; then nothing has changed."""
        by_key = {each.key: each for each in wanted}
        for key, forward in by_key.items():
            present = self._entries.get(key)
            if present is not None and not present.is_of_file and present.forward != forward:
                raise self._exists(forward)
            self._check(forward)
        fresh = [forward for key, forward in by_key.items() if key not in self._entries]
        gone = [entry for key, entry in self._entries.items() if entry.is_of_file and key not in by_key]
        self._replace([each for each in gone if any(_overlap(each.forward, other) for other in fresh)], fresh)
        for entry in gone:
            if self._entries.get(entry.forward.key) is entry:
                del self._entries[entry.forward.key]
                entry.running.close()
        for key, forward in by_key.items():
            entry = self._entries[key]
            entry.is_of_file = True
            if entry.forward != forward:
                entry.running.retarget(forward)

    def status(self) -> list[dict[str, Any]]:
        """Return each forward with its counters, ready for JSON; `since`: seconds since 1970."""
        began_at = time.time() - self._loop.time()
        return [_status_of(entry, began_at) for entry in self._entries.values()]

    def close(self) -> None:
        """Stop listening, and reset all connections."""
        for entry in self._entries.values():
            entry.running.close()
        self._entries.clear()
        self._connections.close()

    def _replace(self, in_the_way: list[_Entry], fresh: list[Forward]) -> None:
        """Open forwards of the file, after closing those that hold their ports. If that fails, undo it, and raise."""
        for entry in in_the_way:
            del self._entries[entry.forward.key]
            entry.running.close()
        opened: list[_Entry] = []
        try:
            for forward in fresh:
                opened.append(self._open(forward, opened, is_of_file=True))
        except VpntunError:
            for entry in opened:
                entry.running.close()
            for entry in in_the_way:
                self._open_again(entry.forward)
            raise
        self._entries.update((entry.forward.key, entry) for entry in opened)

    def _open_again(self, forward: Forward) -> None:
        try:
            self._entries[forward.key] = self._open(forward, is_of_file=True)
        except VpntunError as error:
            log.error("the forward %s has ended: %s", forward, error)

    def _open(self, forward: Forward, beside: Collection[_Entry] = (), *, is_of_file: bool) -> _Entry:
        """Open a forward. `beside`: those opened with it, which are not in the table yet. Raises as `expose`."""
        self._check(forward)
        way = self._ways[forward.origin]
        try:
            listening = ListeningSockets(forward, way.listening)
        except PortInUse as error:
            raise _named(error, forward, [each.forward for each in (*self._entries.values(), *beside)]) from None
        running: StreamForward | DatagramForward
        if forward.protocol == "udp":
            running = DatagramForward(self._loop, forward, listening, way.connecting, self._connections)
        else:
            running = StreamForward(self._loop, forward, listening, self._dialled_by(way), self._connections)
        if self._has_begun:
            running.begin()
        return _Entry(running, is_of_file, self._loop.time())

    def _check(self, forward: Forward) -> None:
        """Raise ConfigurationError for a forward that this tunnel cannot have."""
        if forward.origin not in self._ways:
            raise ConfigurationError(
                f"{forward}: only 'vpntun run' has an inside; use 'from peer' for what comes out of the tunnel, or "
                "leave 'from' out for what comes from this machine"
            )
        if isinstance(forward.target, ServiceName) and self._visit is None:
            raise ConfigurationError(f"{forward.target}: this tunnel reaches no services by name; give HOST:PORT")

    def _dialled_by(self, way: Way) -> Callable[[Target, OnConnected, OnFailed], Attempt | None]:
        def dial(target: Target, on_connected: OnConnected, on_failed: OnFailed) -> Attempt | None:
            if isinstance(target, ServiceName):
                assert self._visit is not None  # _check
                return self._visit(target, on_connected, on_failed)
            return connect(self._loop, way.connecting, target, on_connected, on_failed)

        return dial

    def _exists(self, forward: Forward) -> ForwardExists:
        present = self._entries[forward.key].forward
        return ForwardExists(
            f"{forward.protocol} {spelled(forward.listen)} is forwarded already, to {spelled(present.target)}: "
            "unexpose it first"
        )


def _named(error: PortInUse, forward: Forward, others: Iterable[Forward]) -> PortInUse:
    """Return an error that names the forward which is in the way of another, or the same error if none is."""
    for other in others:
        if _overlap(forward, other):
            return PortInUse(
                f"{forward.protocol} {spelled(forward.listen)} is in use by the forward {other}: unexpose that one, or "
                "choose another port"
            )
    return error


def _overlap(one: Forward, other: Forward) -> bool:
    """Whether two forwards may want the same port, or the same file."""
    if isinstance(one.listen, Path) or isinstance(other.listen, Path):
        return one.listen == other.listen
    return one.protocol == other.protocol and one.listen[1] == other.listen[1]


def _status_of(entry: _Entry, began_at: float) -> dict[str, Any]:
    forward, counters = entry.forward, entry.running.counters
    return {
        "protocol": forward.protocol,
        "from": forward.origin,
        "listen": spelled(forward.listen),
        "target": spelled(forward.target),
        "of_file": entry.is_of_file,
        "since": round(began_at + entry.since),
        "connections": counters.connections,
        "connections_total": counters.total,
        "connections_refused": counters.refused,
        "connections_failed": counters.failed,
        "sent_bytes": counters.sent,
        "received_bytes": counters.received,
        "last_failure": counters.last_failure or None,
    }
