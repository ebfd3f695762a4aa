"""The two ends of a SOCKS5 proxy in tests: a client on a loop that the test turns, and the other side of a tunnel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.machine import HandLoop
from tests.serving.test_public_server import free_port
from vpntun.forwards.connections import Connections
from vpntun.runtime.resolver import Found, OnFound
from vpntun.socks.proxy import Socks5Proxy
from vpntun.types import Place, SocketAddress

GREETING, WELCOME = b"\x05\x01\x00", b"\x05\x00"
REPLY_OF_IPV4, REPLY_OF_IPV6 = 10, 22
"""Bytes of a reply with an address of this version."""


class OtherSide:
    """The other side of a tunnel, which is this machine's loopback. Tests set what fails there."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        self.names: dict[str, list[str]] = {}
        self.error: int | None = None
        """The error with which sockets cannot be opened."""
        self.is_silent = False
        """Whether no look-up is ever answered."""
        self.asked: list[str] = []
        self.opened: list[socket.socket] = []

    def open(self, family: int, kind: int) -> socket.socket:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        new = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self.opened.append(new)
        return new

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        raise NotImplementedError

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        self.asked.append(host)
        if self.is_silent:
            return
        found: Found = [family_and_address(each, port) for each in self.names.get(host, [])]
        error = None if found else socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.loop.call_later(0.0, partial(answer, found, error))


def family_and_address(host: str, port: int) -> tuple[socket.AddressFamily, SocketAddress]:
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)


class Client:
    """A program that uses the proxy."""

    def __init__(self, loop: HandLoop, place: Place | Path) -> None:
        self.loop = loop
        family = socket.AF_UNIX if isinstance(place, Path) else family_and_address(*place)[0]
        self.socket = socket.socket(family)
        self.socket.connect(str(place) if isinstance(place, Path) else place)
        self.socket.setblocking(False)

    def send(self, data: bytes) -> None:
        assert self.socket.send(data) == len(data)

    def receive(self, size: int) -> bytes:
        """Wait for so many bytes; fewer are the last ones."""
        got = b""

        def has_come() -> bool:
            nonlocal got
            try:
                data = self.socket.recv(size - len(got))
            except BlockingIOError:
                return False
            got += data
            return not data or len(got) == size

        self.loop.until(has_come, f"for {size} bytes")
        return got

    def has_been_closed(self) -> bool:
        """Whether the proxy has ended the connection, after no more bytes."""
        try:
            return not self.socket.recv(1)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def ask(self, request: bytes) -> bytes:
        """Greet, send a request, and return the reply."""
        self.send(GREETING)
        assert self.receive(2) == WELCOME
        self.send(request)
        reply = self.receive(4)
        return reply + self.receive((REPLY_OF_IPV4 if reply[3] == 1 else REPLY_OF_IPV6) - 4)


class Proxy(Socks5Proxy):
    """A proxy on a free port of an address, or at a path."""

    def __init__(self, loop: HandLoop, side: OtherSide, at: str | Path = "127.0.0.1", most: int = 100) -> None:
        if isinstance(at, Path):
            self.place: Path | Place = at
        else:
            self.place = at, free_port(family_and_address(at, 0)[0], at)
        self.connections = Connections(loop, most)
        super().__init__(loop, self.place, side, self.connections)

    @property
    def port(self) -> int:
        assert isinstance(self.place, tuple)
        return self.place[1]

    def close(self) -> None:
        super().close()
        self.connections.close()


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A server on the other side, which the test has accept."""
    family, address = family_and_address(host, 0)
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        yield server


def request(command: int, kind: int, host: bytes, port: int) -> bytes:
    """Return a request, with an address of any type."""
    return bytes([5, command, 0, kind]) + host + port.to_bytes(2, "big")


def packed_name(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()
