"""Sockets that are bound to a device, and take what arrives on it alone."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from vpntun.tun import bound_sockets
from vpntun.tun.bound_sockets import accept_only_from, bind_to_device

HERE = "127.0.0.1"


@pytest.fixture
def other_device() -> str:
    """The name of a device on which nothing to 127.0.0.1 arrives."""
    others = [name for _, name in socket.if_nameindex() if name != "lo"]
    if not others:
        pytest.skip("the loopback device is the only one")
    return others[0]


def connects(listener: socket.socket) -> bool:
    listener.bind((HERE, 0))
    listener.listen()
    with socket.socket() as client:
        client.settimeout(0.3)
        try:
            client.connect(listener.getsockname())
        except TimeoutError:
            return False
    return True


def test_a_listener_takes_what_arrives_on_its_device() -> None:
    with socket.socket() as listener:
        bind_to_device(listener, "lo")
        accept_only_from(listener, "lo")
        assert connects(listener)


def test_a_listener_takes_nothing_that_arrives_on_another_device(other_device: str) -> None:
    with socket.socket() as listener:
        accept_only_from(listener, other_device)
        assert not connects(listener)


def test_a_device_that_is_not_there_is_an_error() -> None:
    with socket.socket() as new:
        for act in (bind_to_device, accept_only_from):
            with pytest.raises(OSError, match="No such device"):
                act(new, "no-such-device")


class Addressed(socket.socket):
    """A socket of a machine that has 127.0.0.1 alone of its loopback addresses."""

    def bind(self, address: Any) -> None:
        if address[0] != HERE:
            raise OSError(errno.EADDRNOTAVAIL, "no such address")
        super().bind(address)


def forbidden(*_: object) -> None:
    raise PermissionError(errno.EPERM, "as some kernels do")


def received(listener: socket.socket, how: str) -> bool:
    """Whether the socket takes what waits there."""
    try:
        if how == "accept":
            listener.accept()[0].close()
        elif how == "recvfrom":
            assert listener.recvfrom(100)[0] == b"question"
        else:
            assert listener.recvmsg_into([bytearray(100)], 100)[0] == len("question")
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("how", ["accept", "recvfrom", "recvmsg_into"])
def test_without_a_filter_programs_of_the_machine_itself_are_refused_by_their_addresses(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bound_sockets, "_attach_filter", forbidden)
    kind = socket.SOCK_STREAM if how == "accept" else socket.SOCK_DGRAM
    new = socket.socket(type=kind)
    with accept_only_from(new, "lo", lambda family: Addressed(family, socket.SOCK_DGRAM)) as listener:
        listener.bind((HERE, 0))
        if how == "accept":
            listener.listen()
        for source, is_taken in ((HERE, False), ("127.0.0.9", True), ("127.0.0.9", True)):
            with socket.socket(type=kind) as client:
                client.bind((source, 0))
                client.connect(listener.getsockname())
                client.send(b"question")
                assert received(listener, how) is is_taken
