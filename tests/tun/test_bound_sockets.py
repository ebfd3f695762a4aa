"""Sockets that are bound to a device, and take what arrives on it alone."""

from __future__ import annotations

import socket

import pytest

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
