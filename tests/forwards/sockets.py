"""Real sockets on loopback for tests of forwards: connected pairs, and a side whose look-ups the test answers."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress

from tests.machine import HandLoop
from vpntun.runtime.resolver import Found, OnFound
from vpntun.types import Place

Pair = tuple[socket.socket, socket.socket]


class Loopback:
    """This machine as a side of a tunnel; `names` are what its resolver knows, and `closed` what has no socket here."""

    def __init__(
        self,
        loop: HandLoop,
        names: Mapping[str, Sequence[tuple[int, Place]]] | None = None,
        closed: frozenset[int] = frozenset(),
    ):
        self._loop = loop
        self._names = names or {}
        self._closed = closed

    def open(self, family: int, kind: int) -> socket.socket:
        if family in self._closed:
            raise OSError(97, "Address family not supported by protocol")
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        made = self.open(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
        made.bind((host or "127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            made.listen(1024)
        return [made]

    def look_up(self, host: str, port: int, answer: OnFound) -> None:
        found: Found = [
            (socket.AddressFamily(family), (address[0], port)) for family, address in self._names.get(host, ())
        ]
        error = None if found else socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self._loop.call_later(0.0, lambda: answer(found, error))


def tcp_pair() -> Pair:
    """Two ends of a TCP connection, both non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def unix_pair() -> Pair:
    """Two ends of a unix stream connection, both non-blocking."""
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def receive(loop: HandLoop, end: socket.socket, size: int) -> bytes:
    """Turn the loop until an end has received this many bytes."""
    got = bytearray()

    def is_complete() -> bool:
        with suppress(BlockingIOError):
            while len(got) < size and (piece := end.recv(size - len(got))):
                got.extend(piece)
        return len(got) >= size

    loop.until(is_complete, f"for {size} bytes")
    return bytes(got)


def has_ended(end: socket.socket) -> bool:
    """Whether the other end sends no more; what it has sent must have been received."""
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


def was_reset(end: socket.socket) -> bool:
    """Whether the connection was reset."""
    try:
        end.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return False
