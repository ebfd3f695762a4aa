"""Visits: connections to services of peers, which this end knows by name alone.

1. A permission is asked for, unless one is kept (granted.py).
2. The service's entrance is connected to, inside the tunnel (entering.py). Where it does not know a permission that was
   kept, since the other end was restarted say, another one is asked for, once.
3. The connection is handed over as if it had been made to the service itself.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from functools import partial

from vpntun.config.forwards import ServiceName
from vpntun.forwards.connecting import OnConnected, OnFailed
from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.services.entering import Entering
from vpntun.services.granted import Granted
from vpntun.services.neighbours import Neighbours
from vpntun.wire.inside.services import Grant


class Visits:
    """The visits of one tunnel. `inside`: where their connections are made."""

    def __init__(self, loop: Loop, neighbours: Neighbours, inside: Side) -> None:
        self.loop = loop
        self.inside = inside
        self.granted = Granted(loop, neighbours)
        self._neighbours = neighbours
        self._given_keys: dict[ServiceName, bytes] = {}

    def visit(self, name: ServiceName, on_connected: OnConnected, on_failed: OnFailed) -> Visit:
        """Connect to a service; the loop calls one of the two. The text of the error says what the operator can do.

        The socket is non-blocking, and watched by nobody.
        """
        return Visit(self, name, on_connected, on_failed)

    def key_of(self, name: ServiceName) -> bytes | None:
        """Return the key of a service, if this end has it: given at runtime, or else in the file."""
        return self._given_keys.get(name) or self._file_keys.get(name)

    def give_key(self, name: ServiceName, key: bytes | None) -> None:
        """Use a service with this key from now on; None: with that in the file, if there is one."""
        self._given_keys.pop(name, None)
        if key is not None:
            self._given_keys[name] = key

    def follow_settings(self) -> None:
        """Ask for all permissions again: peers may have changed."""
        self.granted.forget()

    @property
    def _file_keys(self) -> Mapping[ServiceName, bytes]:
        return self._neighbours.services.keys


class Visit:
    """One connection to a service, which is being made; `close` gives it up."""

    def __init__(self, visits: Visits, name: ServiceName, on_connected: OnConnected, on_failed: OnFailed) -> None:
        self._visits = visits
        self._name = name
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._entering: Entering | None = None
        self._is_over = False
        kept = visits.granted.known(name)
        if kept is not None:
            visits.loop.call_later(0.0, partial(self._enter, kept, is_kept=True))
        else:
            self._ask()

    def close(self) -> None:
        """Give up, without calling anybody back."""
        self._is_over = True
        if self._entering is not None:
            self._entering.close()

    def _ask(self, stale: Grant | None = None) -> None:
        self._visits.granted.ask(self._name, partial(self._enter, is_kept=False), self._fail, stale=stale)

    def _enter(self, grant: Grant, *, is_kept: bool) -> None:
        """Enter with a permission. `is_kept`: it was given for an earlier visit."""
        if self._is_over:
            return
        visits, key = self._visits, self._visits.key_of(self._name)
        if grant.needs_key and key is None:
            self._fail(
                f"it is for those who have its key: add 'ServiceKey = {self._name} KEY' to the file, or give 'vpntun "
                "expose' a --service-key"
            )
            return

        def refused(reason: str, may_be_old: bool) -> None:
            self._entering = None
            if is_kept and may_be_old:
                self._ask(grant)
            else:
                self._fail(reason)

        self._entering = Entering(visits.loop, visits.inside, grant, self._name.service, key, self._connect, refused)

    def _connect(self, connection: socket.socket) -> None:
        self._is_over = True
        self._on_connected(connection)

    def _fail(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._on_failed(OSError(errno.ECONNREFUSED, reason))
