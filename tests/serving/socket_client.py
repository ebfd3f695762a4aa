"""A client of a unix socket, on a loop that the test turns."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar

from tests.machine import HandLoop

Answer = TypeVar("Answer")


class SocketClient(Generic[Answer]):
    """A connection. `take` cuts the first answer off what has arrived, and returns None while it is incomplete."""

    def __init__(self, loop: HandLoop, path: Path, take: Callable[[bytearray], Answer | None]) -> None:
        self.loop = loop
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.got = bytearray()
        self.ended = False
        self._take = take
        loop.poll()

    def send(self, data: str | bytes) -> None:
        self.socket.send(data.encode() if isinstance(data, str) else data)
        self.loop.settle(0.01)

    def read(self) -> None:
        """Read all that has arrived."""
        while not self.ended:
            try:
                data = self.socket.recv(1 << 20)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            self.got += data
            self.ended = not data

    def answers(self, count: int) -> list[Answer]:
        """Wait for this many more answers, and return them."""
        found: list[Answer] = []

        def arrived() -> bool:
            self.read()
            while len(found) < count and (answer := self._take(self.got)) is not None:
                found.append(answer)
            return len(found) == count

        self.loop.until(arrived, f"for {count} answers; {bytes(self.got)!r}")
        return found

    def ask(self, data: str | bytes) -> Answer:
        self.send(data)
        return self.answers(1)[0]

    def is_closed(self) -> bool:
        self.loop.settle(0.01)
        self.read()
        return self.ended


def sleeps(loop: HandLoop, seconds: float = 0.05) -> bool:
    """Whether the loop has nothing to do for that time."""
    turns, end = 0, monotonic() + seconds
    while monotonic() < end:
        loop.poll(0.01)
        turns += 1
    return turns < 10
