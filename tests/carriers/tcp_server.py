"""Real TCP connections on the loopback: a server that accepts them, and its clients."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress

from tests.carriers.test_udp_socket import free_port
from tests.datapath.ends import ALICE, BOB, Stamps
from tests.machine import HandLoop
from vpntun.carriers.accepted import AcceptedConnections
from vpntun.carriers.base import Stream
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.endpoint import Outcome
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.errors import BadPacket
from vpntun.wire.stream_framing import SharedBuffer


def a_peer(public: bytes = BOB.public) -> Peer:
    """A peer of Alice's, without an endpoint yet."""
    return Peer(ALICE, public, bytes(32), Node(ALICE).indices, Stamps(), random.Random(1))


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


class Client:
    """An accepted connection and the ordinary socket at its other end, with all events that the loop saw."""

    def __init__(self, connection: TcpConnection, outside: socket.socket, loop: HandLoop) -> None:
        self.connection = connection
        self.outside = outside
        self.loop = loop
        self.messages: list[bytes] = []
        self.reasons: list[str] = []
        self.closed = 0
        self.ready = 0
        self.on_ready: Callable[[], None] = lambda: None
        loop.watch(connection.fileno(), self._read, connection.flush)

    def _read(self) -> None:
        try:
            self.messages.extend(bytes(message) for message in self.connection.receive())
        except BadPacket as bad:
            self.reasons.append(bad.reason)

    def send(self, *messages: bytes) -> None:
        self.outside.sendall(b"".join(map(frame, messages)))

    def stall(self) -> list[bytes]:
        """Send until the kernel accepts only part of a frame; return the sent messages, that one included."""
        sent: list[bytes] = []
        while True:
            message = len(sent).to_bytes(4, "big") * 4000
            sent.append(message)
            if self.connection.send([memoryview(message)]) is Outcome.HELD:
                return sent

    def receive(self, count: int) -> list[bytes]:
        """Read `count` frames at the other end, while the loop turns."""
        self.outside.setblocking(False)
        stream = bytearray()
        frames: list[bytes] = []

        def enough() -> bool:
            with suppress(BlockingIOError):
                stream.extend(self.outside.recv(1 << 20))
            while len(stream) >= 2 and len(stream) >= 2 + int.from_bytes(stream[:2], "big"):
                size = int.from_bytes(stream[:2], "big")
                frames.append(bytes(stream[2 : 2 + size]))
                del stream[: 2 + size]
            return len(frames) >= count

        self.loop.until(enough, f"for {count} frames")
        assert not stream
        return frames

    def sees_close(self) -> bool:
        """Return whether the other end sees the connection close, without a byte before."""
        self.outside.settimeout(5)
        try:
            return self.outside.recv(1) == b""
        except ConnectionError:
            return True


class TcpServer:
    """A listener, the connections that it has accepted, and their clients."""

    def __init__(self, loop: HandLoop, stack: ExitStack) -> None:
        self.loop = loop
        self.port = free_port(socket.AF_INET, socket.SOCK_STREAM)
        self.listener = TcpListener(socket.AF_INET, self.port)
        self.accepted = AcceptedConnections(loop, SharedBuffer(), self._ready, self._closed)
        self._clients: dict[Stream, Client] = {}
        self._stack = stack
        stack.callback(self.listener.close)

    def call(self, source: str = "127.0.0.1") -> socket.socket:
        outside = self._stack.enter_context(socket.socket())
        outside.bind((source, 0))
        outside.settimeout(5)
        outside.connect(("127.0.0.1", self.port))
        return outside

    def accept(self) -> TcpConnection | None:
        return next(self.listener.accept(self.loop, self.accepted), None)

    def client(self, source: str = "127.0.0.1", *, authenticated: bool = False) -> Client:
        outside = self.call(source)
        connection = self.accept()
        assert connection is not None
        self._stack.callback(connection.close)
        client = self._clients[connection] = Client(connection, outside, self.loop)
        if authenticated:
            client.connection.belongs_to(a_peer())
        return client

    def _ready(self, connection: Stream) -> None:
        client = self._clients[connection]
        client.ready += 1
        client.on_ready()

    def _closed(self, connection: Stream) -> None:
        if connection in self._clients:
            self._clients[connection].closed += 1
