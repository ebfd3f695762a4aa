"""Entrance to this end's services: a listener on the tunnel's addresses, where visitors show their tokens.

1. The listener is opened when the first visitor is given a token, on a free port of each of the tunnel's addresses, and
   closed once no token is valid any more.
2. A visitor is sent a nonce, and shows a token and a proof (wire/inside/services.py).
3. A program of this machine is connected to, and the visitor is told so. From then on a relay passes everything on.

No byte that a visitor sends behind the proof is read before that. SECONDS_TO_ENTER, MOST_ENTERING and
MOST_OF_AN_ADDRESS limit clients that have shown no valid token. The others share the room that forwards have
for connections (forwards/connections.py).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from vpntun.config.services import Service
from vpntun.core.source_limits import network_of
from vpntun.crypto.service_proof import is_proven
from vpntun.forwards.connecting import Connecting, connect
from vpntun.forwards.connections import Connections, Counters
from vpntun.forwards.relay import Relay, reset
from vpntun.forwards.ways import Way
from vpntun.runtime.log import NOTICE, Limited, log
from vpntun.runtime.loop import Loop
from vpntun.services.permissions import LASTS, Permissions
from vpntun.types import Place
from vpntun.wire.inside.services import (
    NONCE_SIZE,
    PROOF_SIZE,
    REASONS,
    TARGET_REFUSES,
    TOKEN_SIZE,
    TOO_MANY,
    UNKNOWN_TOKEN,
    WELCOME,
    WRONG_KEY,
)

SECONDS_TO_ENTER = 10.0
MOST_ENTERING, MOST_OF_AN_ADDRESS = 512, 256
"""Connections whose visitors have not entered yet, in all and from one address, or IPv6 /64; more are reset."""
ACCEPTED_PER_TURN = 16
MOST_LINES = 5
"""Log lines about refused visits in ten seconds."""


class Entrance:
    """The listener of one tunnel, and the visits to its services.

    `way`: where visitors come from, and where the services are. `offered`: the service of a permission, if it is still
    offered to its owner. `connections`: where visits count, beside the connections of forwards.
    """

    def __init__(
        self,
        loop: Loop,
        way: Way,
        permissions: Permissions,
        offered: Callable[[str, tuple[str, ...]], Service | None],
        connections: Connections,
    ) -> None:
        self.loop = loop
        self.outside = way.connecting
        self.permissions = permissions
        self.offered = offered
        self._inside = way.listening
        self._connections = connections
        self._counters: dict[str, Counters] = {}
        self._relays: set[Relay] = set()
        self._listeners: list[socket.socket] = []
        self._open_until = 0.0
        self._entering: set[_Guest] = set()
        self._refused = Limited(NOTICE, "refused %s: %s", most=MOST_LINES)

    def places(self) -> tuple[Place, ...]:
        """Return the addresses and ports where a token can be shown, as long as it lasts. Raises OSError."""
        self._open_until = self.loop.now + LASTS
        if not self._listeners:
            self._listeners = self._inside.listen(socket.SOCK_STREAM, "", 0)
            self.loop.call_later(LASTS, self._shut_if_unused)
            for listener in self._listeners:
                self.loop.watch(listener.fileno(), partial(self._accept, listener))
        return tuple(listener.getsockname()[:2] for listener in self._listeners)

    def counters_of(self, service: str) -> Counters:
        """Return what was counted of a service's visits."""
        return self._counters.setdefault(service, Counters())

    def shut(self) -> None:
        """Listen no more. Visits that have begun go on."""
        for listener in self._listeners:
            self.loop.forget(listener.fileno())
            listener.close()
        self._listeners = []
        for guest in list(self._entering):
            guest.leave()

    def close(self) -> None:
        """Listen no more, and end all visits."""
        self.shut()
        while self._relays:
            self._relays.pop().close()

    def left(self, guest: _Guest) -> None:
        """Note that a guest was refused, has gone, or has entered."""
        self._entering.discard(guest)

    def refuse(self, what: str, reason: str) -> None:
        """Log why a guest is refused."""
        self._refused(what, reason)

    def has_room(self, service: str) -> bool:
        """Whether another visit to a service may begin."""
        counters = self.counters_of(service)
        if self._connections.have_room_for(counters):
            return True
        counters.refused += 1
        return False

    def admit(self, service: str, visitor: socket.socket, program: socket.socket) -> None:
        """Pass on what a visitor and a program send, if there still is room."""
        counters = self.counters_of(service)

        def ended(relay: Relay) -> None:
            self._relays.discard(relay)
            counters.sent += relay.sent
            counters.received += relay.received
            self._connections.dismiss(counters)

        if self._connections.admit(counters):
            try:
                self._relays.add(self._connections.relay(visitor, program, ended))
            except OSError:  # one of them has gone
                self._connections.dismiss(counters)
            else:
                return
        for each in (visitor, program):
            reset(each)

    def _shut_if_unused(self) -> None:
        left = self._open_until - self.loop.now
        if self._listeners and left > 0:
            self.loop.call_later(left, self._shut_if_unused)
        else:
            self.shut()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            accepted = self.loop.accept(listener)
            if accepted is None:
                return
            new, (address, *_) = accepted
            new.setblocking(False)
            if len(self._entering) < MOST_ENTERING and self._number_from(_network(address)) < MOST_OF_AN_ADDRESS:
                self._entering.add(_Guest(self, new, address))
            else:
                reset(new)

    def _number_from(self, network: bytes) -> int:
        return sum(guest.network == network for guest in self._entering)


def _network(address: str) -> bytes:
    """Return what a visitor's address counts for: a peer may have a whole IPv6 network."""
    return network_of(ip_address(address).packed)


class _Guest:
    """A connection whose visitor has not entered yet."""

    def __init__(self, entrance: Entrance, connection: socket.socket, address: str) -> None:
        self.address = address
        self.network = _network(address)
        self._entrance = entrance
        self._connection = connection
        self._nonce = os.urandom(NONCE_SIZE)
        self._shown = b""
        self._calling: Connecting | None = None
        self._is_here = True
        loop = entrance.loop
        with suppress(OSError):  # then there is nothing to read either
            connection.send(self._nonce)
        loop.watch(connection.fileno(), self._read, on_failure=self.leave)
        loop.call_later(SECONDS_TO_ENTER, self.leave)

    def leave(self) -> None:
        """Close the connection, unless the visitor has entered."""
        if not self._is_here:
            return
        self._is_here = False
        self._entrance.loop.forget(self._connection.fileno())
        self._connection.close()
        if self._calling is not None:
            self._calling.close()
        self._entrance.left(self)

    def _read(self) -> None:
        try:
            received = self._connection.recv(TOKEN_SIZE + PROOF_SIZE - len(self._shown))
        except BlockingIOError:
            return
        except OSError:
            received = b""
        self._shown += received
        if not received:
            self.leave()
        elif len(self._shown) == TOKEN_SIZE + PROOF_SIZE:
            self._entrance.loop.forget(self._connection.fileno())
            self._judge(self._shown[:TOKEN_SIZE], self._shown[TOKEN_SIZE:])

    def _judge(self, token: bytes, proof: bytes) -> None:
        """Connect to the service if the token and the proof are good."""
        entrance = self._entrance
        permission = entrance.permissions.of(token, entrance.loop.now)
        service = None
        if permission is not None:
            service = entrance.offered(permission.service, permission.visitor.names)
        if permission is None or service is None:
            self._refuse(UNKNOWN_TOKEN, f"a visitor at {self.address}")
            return
        what = f"{permission.visitor} the service {service.name}"
        if service.key is not None and not is_proven(proof, service.key, self._nonce, token, service.name):
            self._refuse(WRONG_KEY, what)
        elif not entrance.has_room(service.name):
            self._refuse(TOO_MANY, what)
        else:
            self._calling = connect(
                entrance.loop,
                entrance.outside,
                service.target,
                partial(self._enter, service.name, str(permission.visitor)),
                lambda error: self._refuse(TARGET_REFUSES, what, f" ({error.strerror or error})"),
            )

    def _enter(self, service: str, visitor: str, program: socket.socket) -> None:
        """Let the visitor in, now that the program has taken the connection."""
        self._calling = None
        try:
            self._connection.send(bytes([WELCOME]))
        except OSError:
            program.close()
            self.leave()
            return
        self._is_here = False
        self._entrance.left(self)
        log.info("%s uses the service %s", visitor, service)
        self._entrance.admit(service, self._connection, program)

    def _refuse(self, verdict: int, what: str, detail: str = "") -> None:
        """Send a refusal, and close."""
        self._entrance.refuse(what, REASONS[verdict] + detail)
        with suppress(OSError):
            self._connection.send(bytes([verdict]))
        self.leave()
