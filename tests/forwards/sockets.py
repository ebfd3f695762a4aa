"""Real sockets on loopback for tests of forwards: connected pairs, and a side whose look-ups the test answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.machine import HandLoop
from vpntun.carriers.sockets import family_of
from vpntun.forwards.sides import listening
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
        host = host or "127.0.0.1"
        return [listening(self.open(family_of((host, port)), kind), host, port)]

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


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Echo:
    """A server on 127.0.0.1, served by the test's loop, that sends back what it receives, behind its own name."""

    def __init__(self, loop: HandLoop, name: bytes = b"") -> None:
        self._loop = loop
        self._name = name
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.place: Place = self._listener.getsockname()
        self._open: list[socket.socket] = []
        loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            self._loop.forget(each.fileno())
            each.close()

    def _accept(self) -> None:
        new, _ = self._listener.accept()
        new.setblocking(False)
        self._open.append(new)
        if self._name:
            new.send(self._name)
        self._loop.watch(new.fileno(), lambda: self._answer(new))

    def _answer(self, one: socket.socket) -> None:
        try:
            piece = one.recv(65536)
        except OSError:
            piece = b""
        if piece:
            one.send(piece)
        else:
            self._loop.forget(one.fileno())
            self._open.remove(one)
            one.close()


def client_of(place: str | Place) -> socket.socket:
    """A non-blocking client that has begun to connect: to a place, or to the path of a unix socket."""
    new = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
    new.setblocking(False)
    new.connect_ex(place)
    return new


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose name is short enough for unix sockets in it."""
    with TemporaryDirectory(prefix="vt-") as name:
        yield Path(name)
