"""Opening of a forward's sockets: errors that say what to do, and unix sockets that come and go."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.forwards.sockets import Loopback, client_of, short_folder
from tests.machine import HandLoop
from vpntun.config.forwards import Forward, Origin
from vpntun.errors import ConfigurationError, PortInUse, PrivilegeError, VpntunError
from vpntun.forwards.opening import ListeningSockets


class Refusing(Loopback):
    """A side on which nothing can be listened on."""

    def __init__(self, loop: HandLoop, number: int) -> None:
        super().__init__(loop)
        self._number = number

    def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
        raise OSError(self._number, os.strerror(self._number))


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def at(path: Path) -> Forward:
    return Forward("tcp", path, ("127.0.0.1", 1))


@pytest.mark.parametrize(
    ("number", "origin", "kind", "text"),
    [
        (errno.EADDRINUSE, "here", PortInUse, "tcp 192.0.2.1:80 is in use: stop the program that holds it, or"),
        (errno.EADDRNOTAVAIL, "here", ConfigurationError, "this machine has no such address: choose one that it has"),
        (errno.EADDRNOTAVAIL, "inside", ConfigurationError, "the namespace has no such address"),
        (errno.EADDRNOTAVAIL, "peer", ConfigurationError, "the tunnel has no such address: choose one that it has"),
        (errno.EACCES, "here", PrivilegeError, "choose a port above 1023, or run as root"),
        (errno.EPERM, "peer", PrivilegeError, "no right to listen on 192.0.2.1:80"),
        (errno.ENODEV, "peer", VpntunError, "192.0.2.1:80 cannot be listened on: No such device"),
    ],
)
def test_errors_say_what_to_do(loop: HandLoop, number: int, origin: Origin, kind: type[VpntunError], text: str) -> None:
    with pytest.raises(VpntunError) as raised:
        ListeningSockets(Forward("tcp", ("192.0.2.1", 80), ("127.0.0.1", 1), origin), Refusing(loop, number))
    assert type(raised.value) is kind
    assert text in str(raised.value)


def test_a_device_without_an_address_is_named(loop: HandLoop) -> None:
    class Bare(Loopback):
        def listen(self, kind: int, host: str, port: int) -> list[socket.socket]:
            raise OSError(errno.EADDRNOTAVAIL, "tun3 has no address")

    with pytest.raises(ConfigurationError, match=":80 cannot be listened on: tun3 has no address: give it one"):
        ListeningSockets(Forward("tcp", ("", 80), ("127.0.0.1", 1), "peer"), Bare(loop))


def test_a_unix_socket_is_its_owners_alone_and_removed_at_the_end(loop: HandLoop, folder: Path) -> None:
    opened = ListeningSockets(at(folder / "s"), Loopback(loop))
    assert (folder / "s").stat().st_mode & 0o777 == 0o600
    client_of(str(folder / "s")).close()
    opened.close()
    assert list(folder.iterdir()) == []


def test_a_unix_socket_that_a_killed_process_left_is_replaced(loop: HandLoop, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "s"))
    ListeningSockets(at(folder / "s"), Loopback(loop)).close()


def test_a_unix_socket_that_is_in_use_or_a_file_is_not_replaced(loop: HandLoop, folder: Path, made: ExitStack) -> None:
    used = made.enter_context(socket.socket(socket.AF_UNIX))
    used.bind(str(folder / "s"))
    used.listen()
    with pytest.raises(PortInUse, match=f"is in use by process {os.getpid()}: stop it, or choose another path"):
        ListeningSockets(at(folder / "s"), Loopback(loop))
    (folder / "f").write_text("mine")
    with pytest.raises(VpntunError, match="this file is no socket"):
        ListeningSockets(at(folder / "f"), Loopback(loop))
    assert (folder / "f").read_text() == "mine"
