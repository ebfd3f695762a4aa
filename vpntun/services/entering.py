"""The visitor's end where a visit begins: it connects to a service's entrance, and shows its token and the proof.

The addresses of the entrance are tried in turn: the next one if an address refuses, or is silent for SECONDS_FOR_PLACE.
Of what the entrance sends only the nonce and the verdict are read here: all that follows is the service's own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial

from vpntun.crypto.service_proof import prove
from vpntun.forwards.connecting import Connecting, OnConnected, connect
from vpntun.forwards.side import Side
from vpntun.runtime.loop import Loop
from vpntun.types import written
from vpntun.wire.inside.services import NONCE_SIZE, REASONS, UNKNOWN_TOKEN, VERDICT_SIZE, WELCOME, Grant

SECONDS_FOR_PLACE = 4.0
SECONDS_TO_ENTER = 15.0
"""Of these, the entrance has 10 to connect to the service."""
ADVICE_ON_SILENCE = (
    "its entrance does not answer: is the other end up, and does its firewall accept connections from the tunnel?"
)

OnRefused = Callable[[str, bool], None]
"""Called with the reason, and whether another permission might help."""


class Entering:
    """An attempt to enter with one permission; `close` gives it up. The loop calls one of the two functions.

    `key`: that of the service, if this end has it.
    """

    def __init__(
        self,
        loop: Loop,
        inside: Side,
        grant: Grant,
        service: str,
        key: bytes | None,
        on_entered: OnConnected,
        on_refused: OnRefused,
    ) -> None:
        self._loop = loop
        self._inside = inside
        self._grant = grant
        self._service = service
        self._key = key
        self._on_entered = on_entered
        self._on_refused = on_refused
        self._places = list(grant.places)
        self._nonce = b""
        self._connecting: Connecting | None = None
        self._connection: socket.socket | None = None
        self._is_over = False
        loop.call_later(SECONDS_TO_ENTER, partial(self._refuse, ADVICE_ON_SILENCE, may_be_old=False))
        self._try_next("it has no address")

    def close(self) -> None:
        """Give up, without calling anybody back."""
        self._is_over = True
        self._leave()

    def _leave(self) -> None:
        """Close the connection, or give up connecting."""
        if self._connecting is not None:
            self._connecting.close()
            self._connecting = None
        if self._connection is not None:
            self._loop.forget(self._connection.fileno())
            self._connection.close()
            self._connection = None

    def _try_next(self, reason: str) -> None:
        """Connect to the next address; if there is none, give up for a reason."""
        if not self._places:
            self._refuse(reason, may_be_old=True)
            return
        place = self._places.pop(0)
        self._nonce = b""
        self._loop.call_later(SECONDS_FOR_PLACE, partial(self._leave_if_silent, len(self._places)))
        self._connecting = connect(
            self._loop,
            self._inside,
            place,
            self._connected,
            lambda error: self._try_next(f"connecting to {written(place)} failed: {error.strerror or error}"),
        )

    def _leave_if_silent(self, left: int) -> None:
        """Try the next address, if this one is still waited for. `left`: how many were left when it was tried."""
        if not self._is_over and 0 < left == len(self._places) and len(self._nonce) < NONCE_SIZE:
            self._leave()
            self._try_next(ADVICE_ON_SILENCE)

    def _connected(self, connection: socket.socket) -> None:
        self._connecting = None
        self._connection = connection
        failed = partial(self._refuse, "internal error: the tunnel's log has it", may_be_old=False)
        self._loop.watch(connection.fileno(), self._read, on_failure=failed)

    def _read(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            if len(self._nonce) < NONCE_SIZE:
                received = connection.recv(NONCE_SIZE - len(self._nonce))
                self._nonce += received
                if len(self._nonce) == NONCE_SIZE:
                    self._show(connection)
            else:
                received = connection.recv(VERDICT_SIZE)
                if received:
                    self._follow(connection, received[0])
        except BlockingIOError:
            return
        except OSError as error:
            self._refuse(f"the other end has closed the connection ({error.strerror or error})", may_be_old=True)
            return
        if not received:
            self._refuse("the other end has closed the connection", may_be_old=True)

    def _show(self, connection: socket.socket) -> None:
        """Show token and proof, for which a new connection has room. Raises OSError."""
        token = self._grant.token
        connection.send(token + prove(self._key, self._nonce, token, self._service))

    def _follow(self, connection: socket.socket, verdict: int) -> None:
        if verdict != WELCOME:
            self._refuse(REASONS.get(verdict, "it refuses for an unknown reason"), may_be_old=verdict == UNKNOWN_TOKEN)
            return
        self._connection = None
        self._is_over = True
        self._loop.forget(connection.fileno())
        self._on_entered(connection)

    def _refuse(self, reason: str, *, may_be_old: bool) -> None:
        if not self._is_over:
            self.close()
            self._on_refused(reason, may_be_old)
