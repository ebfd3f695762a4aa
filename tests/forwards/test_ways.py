"""Ways of forwards: which origins a tunnel has, and on which side each listens."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.forwards.sockets import Loopback, free_port
from tests.machine import HandLoop
from vpntun.forwards.ways import Way, Ways, ways_of_machine, ways_of_run
from vpntun.runtime.resolver import Lookups


@pytest.fixture
def lookups(loop: HandLoop, made: ExitStack) -> Lookups:
    new = Lookups(loop)
    made.callback(new.close)
    return new


class Inside(Loopback):
    """A namespace, whose sockets tell that they were made there."""

    def open(self, family: int, kind: int) -> socket.socket:
        new = super().open(family, kind)
        new.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
        return new


def sides_of(way: Way) -> tuple[str, str]:
    """Where a way listens, and where it connects: the device that sockets are bound to, or "inside" if made there."""
    (listener,) = way.listening.listen(socket.SOCK_STREAM, "127.0.0.1", free_port())
    connecting = way.connecting.open(socket.AF_INET, socket.SOCK_STREAM)
    with listener, connecting:
        return place_of(listener), place_of(connecting)


def place_of(one: socket.socket) -> str:
    device = one.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode()
    inside = "inside" if one.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 5 else ""
    return " ".join(filter(None, (inside, device)))


def described(ways: Ways) -> dict[str, tuple[str, str]]:
    return {origin: sides_of(way) for origin, way in ways.items()}


def test_a_tunnel_of_the_machine_accepts_here_and_on_its_device(lookups: Lookups) -> None:
    assert described(ways_of_machine("lo", lookups)) == {"here": ("", "lo"), "peer": ("lo", "")}


def test_a_run_accepts_here_inside_and_on_its_device_inside(loop: HandLoop, lookups: Lookups) -> None:
    assert described(ways_of_run("lo", lookups, Inside(loop), lambda: ["127.0.0.1"])) == {
        "here": ("", "inside"),
        "inside": ("inside", ""),
        "peer": ("inside lo", ""),
    }
