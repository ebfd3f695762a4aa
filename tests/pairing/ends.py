"""Both ends of a pairing on the loopback: a server in a thread, and a path to it that loses what a test says."""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.carriers.test_udp_socket import free_port
from vpntun.core.pairing.server import SECONDS_OF_CODE
from vpntun.pairing.listening import pair_as_server
from vpntun.runtime.clock import boottime

HOST = "127.0.0.1"
LONGEST_WAIT = 30.0


class Server:
    """`pair_as_server` in a thread. `code` is what it shows, without the hyphen."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.port = free_port(socket.AF_INET, socket.SOCK_STREAM)
        self.code = ""
        self.error: BaseException | None = None
        self._passed = 0.0
        self._shown = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._shown.wait(LONGEST_WAIT)

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def wait(self) -> BaseException | None:
        """Wait for the end, and return the error."""
        self._thread.join(LONGEST_WAIT)
        assert self.has_ended
        return self.error

    def end(self) -> None:
        """End a server that still waits: its time is over, and a stranger wakes it."""
        self._passed = SECONDS_OF_CODE
        while not self.has_ended:
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                self._thread.join(0.05)

    def _run(self) -> None:
        try:
            pair_as_server(self.path, self.port, self._show, lambda: boottime() + self._passed)
        except BaseException as error:
            self.error = error
        self._shown.set()

    def _show(self, code: str) -> None:
        self.code = code.replace("-", "")
        self._shown.set()


@contextmanager
def serving(path: Path) -> Iterator[Server]:
    server = Server(path)
    try:
        yield server
    finally:
        server.end()


class LossyPath:
    """A relay before a server. It closes the connection in place of frame number `loses`, and may end for good then.

    `cuts`: how many bytes of that frame still get through.
    """

    def __init__(self, port: int, loses: int, *, for_good: bool = False, cuts: int = 0) -> None:
        self._to = port
        self._loses, self._for_good, self._cuts = loses, for_good, cuts
        self.frames = 0
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LONGEST_WAIT)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                with inner, suppress(OSError), socket.create_connection((HOST, self._to)) as outer:
                    self._relay(inner, outer)
                if self._for_good and self.frames >= self._loses:
                    self._listener.close()

    def _relay(self, inner: socket.socket, outer: socket.socket) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(inner, selectors.EVENT_READ, outer)
            selector.register(outer, selectors.EVENT_READ, inner)
            while True:
                for key, _ in selector.select():
                    frame = _frame(key.fileobj)  # type: ignore[arg-type]  # a socket
                    self.frames += 1
                    if not frame or self.frames == self._loses:
                        key.data.sendall(frame[: self._cuts])
                        return
                    key.data.sendall(frame)


def _frame(source: socket.socket) -> bytes:
    """Read one frame, which always comes at once here; nothing at the end of the connection."""
    head = source.recv(2)
    return head + source.recv(int.from_bytes(head, "big")) if head else b""


def typed(*codes: str) -> Callable[[], str]:
    """Return a function that gives one code after the other."""
    waiting = list(codes)
    return lambda: waiting.pop(0)


def no_pause(_: float) -> None:
    """Sleep not at all."""


def lines(records: list[logging.LogRecord]) -> str:
    return "\n".join(record.getMessage() for record in records)
