"""Forward of connections: accepts them, refuses them when it is full, and relays them to their target.

1. Up to MOST_ACCEPTED_PER_TURN connections are accepted before the loop serves others.
2. A connection without room is reset at once. So is one whose target cannot be reached, after the attempt.
3. What a client sends before its target is connected waits in the kernel. If the client resets its connection until
   then, the attempt ends, too.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from vpntun.config.forwards import Forward, Target, spelled
from vpntun.forwards.connecting import OnConnected, OnFailed
from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.opening import ListeningSockets
from vpntun.forwards.relay import Relay, reset
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop

MOST_ACCEPTED_PER_TURN = 16


class Attempt(Protocol):
    """A connection that is being made."""

    def close(self) -> None:
        """Give up, without calling anybody back."""


Dial = Callable[[Target, OnConnected, OnFailed], Attempt | None]
"""Connect to a target; the loop calls one of the two. Where there is no attempt to give up, a late call is ignored."""


class StreamForward:
    """One forward of connections, which takes new ones from `begin` until it is closed."""

    def __init__(
        self, loop: Loop, forward: Forward, listening: ListeningSockets, dial: Dial, connections: Connections
    ) -> None:
        self.forward = forward
        self._loop = loop
        self._listening = listening
        self._dial = dial
        self._connections = connections
        self._counters = Counters()
        self._attempts: dict[socket.socket, Attempt | None] = {}
        self._relays: set[Relay] = set()
        self._full = Limited(NOTICE, "refused: there is no room for another connection of %s")
        self._unreachable = Limited(NOTICE, "refused: %s cannot be reached for %s: %s")

    def begin(self) -> None:
        """Accept connections from now on. Until then they wait in the kernel."""
        for each in self._listening.sockets:
            self._loop.watch(each.fileno(), partial(self._accept, each))

    @property
    def counters(self) -> Counters:
        """What the forward has done until now."""
        now = Counters(**vars(self._counters))
        for each in self._relays:
            now.sent += each.sent
            now.received += each.received
        return now

    def retarget(self, forward: Forward) -> None:
        """Pass new connections on to the target of this forward, which listens where the former did."""
        self.forward = forward

    def close(self) -> None:
        """Stop listening, and reset what has no target yet. Connections that are being passed on go on."""
        for each in self._listening.sockets:
            self._loop.forget(each.fileno())
        self._listening.close()
        for near in list(self._attempts):
            self._give_up(near)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(MOST_ACCEPTED_PER_TURN):
            accepted = self._loop.accept(listener)
            if accepted is None:
                return
            near = accepted[0]
            near.setblocking(False)
            if not self._connections.admit(self._counters):
                self._full(self.forward)
                reset(near)
                continue
            self._attempts[near] = None
            target = self.forward.target
            attempt = self._dial(target, partial(self._connected, near), partial(self._failed, near, target))
            if near in self._attempts:
                self._attempts[near] = attempt
                look = partial(self._look_for_reset, near)
                self._loop.watch_changes(near.fileno(), look, look)

    def _look_for_reset(self, near: socket.socket) -> None:
        if near.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._give_up(near)

    def _give_up(self, near: socket.socket) -> None:
        """End an attempt whose outcome nobody wants to know any more."""
        attempt = self._attempts[near]
        if attempt is not None:
            attempt.close()
        self._refuse(near)

    def _connected(self, near: socket.socket, far: socket.socket) -> None:
        if near not in self._attempts:  # closed meanwhile
            far.close()
            return
        self._loop.forget(near.fileno())
        try:
            relay = self._connections.relay(near, far, self._ended)
        except OSError:  # the client has gone
            reset(far)
            self._refuse(near)
            return
        del self._attempts[near]
        self._relays.add(relay)

    def _failed(self, near: socket.socket, target: Target, error: OSError) -> None:
        if near not in self._attempts:
            return
        self._unreachable(spelled(target), self.forward, self._counters.note_failure(error))
        self._refuse(near)

    def _refuse(self, near: socket.socket) -> None:
        del self._attempts[near]
        self._loop.forget(near.fileno())
        self._connections.dismiss(self._counters)
        reset(near)

    def _ended(self, relay: Relay) -> None:
        self._relays.discard(relay)
        self._counters.sent += relay.sent
        self._counters.received += relay.received
        self._connections.dismiss(self._counters)
