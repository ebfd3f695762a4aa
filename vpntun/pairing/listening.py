"""The server's part of --pair: it shows a code, listens on the tunnel's TCP port, and writes the key file.

It ends before the tunnel starts, so nothing of it exists while no pairing is open. As with the tunnel's own listener
(carriers/accepted.py), 256 connections of strangers may be open, 16 from one network, for 10 s each, and a frame has at
most 256 bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import Stream
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.sockets import families
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.config.keyfile import check_free, prepared_shared
from vpntun.core.pairing.server import (
    SECONDS_OF_CODE,
    Event,
    HangUp,
    PairingServer,
    Reply,
    WriteKey,
    WrongCode,
    describe_tries,
)
from vpntun.crypto.pairing import PairingCode, check_installed, new_code, shown
from vpntun.errors import BadPacket, KeyFileError, PairingFailed
from vpntun.pairing.interrupts import Interrupted
from vpntun.pairing.terminal import tell_broken_off, tell_paired
from vpntun.runtime.clock import boottime
from vpntun.runtime.log import tell
from vpntun.runtime.loop import Loop
from vpntun.wire.message import Buffer
from vpntun.wire.stream_framing import SharedBuffer

AGAIN = "start this command again for a new code"


def pair_as_server(path: Path, port: int, show: Callable[[str], None], clock: Callable[[], float] = boottime) -> None:
    """Wait for one client that knows the code, and write the shared key to `path`.

    `show` shows the code to the operator. Raises PairingFailed, KeyFileError, PortInUse or VpntunError.
    """
    check_free(path)
    check_installed()
    code = new_code()
    with ExitStack() as stack:
        loop = Loop(clock)
        stack.callback(loop.close)
        waiting = PairingListener(loop, PairingServer(PairingCode(code, "server"), loop.time()), path)
        stack.callback(waiting.close)
        waiting.listen(port)
        show(shown(code))
        try:
            waiting.wait()
        except Interrupted:
            waiting.explain_break()
            raise


class PairingListener:
    """Listeners and connections of one pairing."""

    def __init__(self, loop: Loop, server: PairingServer, path: Path) -> None:
        self._loop = loop
        self._server = server
        self._path = path
        self._listeners: list[TcpListener] = []
        self._accepted = AcceptedConnections(loop, SharedBuffer(), on_ready=_do_nothing, on_closed=self._closed)
        self._is_written = False
        self._is_closed = False
        self._failed: KeyFileError | None = None

    def listen(self, port: int) -> None:
        """Listen on every IP version. Raises PortInUse, PrivilegeError or VpntunError."""
        for family in families():
            listener = TcpListener(family, port)
            self._listeners.append(listener)
            self._loop.watch(listener.fileno(), partial(self._accept, listener))

    def wait(self) -> None:
        """Serve callers until the key file is written. Raises PairingFailed or KeyFileError."""
        server = self._server
        while not self._is_over and self._loop.time() < server.deadline:
            self._loop.serve(lambda: self._is_over, server.deadline - self._loop.time())
        if self._failed is not None:
            raise self._failed
        if self._is_written:
            return
        self.explain_break()
        if server.is_spoiled:
            raise PairingFailed(
                f"three wrong codes: this code is void now. If nobody mistyped it, somebody guesses; {AGAIN}"
            )
        raise PairingFailed(f"nobody gave the code within {SECONDS_OF_CODE / 60:.0f} minutes; {AGAIN}")

    def explain_break(self) -> None:
        """Say what the other end may have, if it had the right code but this end has not written its key."""
        if self._server.has_agreed:
            tell_broken_off(self._path)

    def close(self) -> None:
        """Close every socket."""
        self._is_closed = True
        for listener in self._listeners:
            self._loop.forget(listener.fileno())
            listener.close()
        self._accepted.close()

    @property
    def _is_over(self) -> bool:
        return self._is_written or self._failed is not None or self._server.is_spoiled or self._is_closed

    def _accept(self, listener: TcpListener) -> None:
        for connection in listener.accept(self._loop, self._accepted):
            read = partial(self._read, connection)
            try:
                self._loop.watch(connection.fileno(), read, connection.flush, on_failure=connection.close)
            except OSError:
                connection.close()
                raise

    def _read(self, connection: TcpConnection) -> None:
        try:
            for frame in connection.receive():
                self._act(connection, frame)
        except BadPacket:
            connection.close()

    def _act(self, connection: TcpConnection, frame: Buffer) -> None:
        events: list[Event] = [HangUp()]
        if not self._is_over:
            events = self._server.receive(connection, frame, self._loop.now)
        while events and connection.is_open:
            events += self._carry_out(connection, events.pop(0))

    def _carry_out(self, connection: TcpConnection, event: Event) -> list[Event]:
        """Carry out an event; return those that follow from it."""
        if isinstance(event, Reply):
            connection.send([memoryview(event.message)])
        elif isinstance(event, HangUp):
            connection.close()
        elif isinstance(event, WrongCode):
            tell("wrong code from %s: %s", connection.host, describe_tries(event.tries_left))
        else:
            return self._server.written(self._write(connection, event))
        return []

    def _write(self, connection: TcpConnection, event: WriteKey) -> bool:
        """Write the key file, and return whether that worked."""
        try:
            with prepared_shared(self._path, event.secret) as publish:
                publish()
        except KeyFileError as error:
            self._failed = error
            return False
        self._is_written = True
        tell_paired(connection.host, self._path)
        return True

    def _closed(self, connection: Stream) -> None:
        if self._server.gone(connection) and not self._is_over:
            tell(
                "%s had the right code, but broke off; no key was written here, and the code still holds",
                connection.host,
            )


def _do_nothing(connection: Stream) -> None:
    """Leave a connection that accepts data again: no message waits for that here."""
