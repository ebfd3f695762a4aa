"""Listener at a place that an option names; test_public_server.py tests what is refused, and when a path is free."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.serving.test_public_server import free_port
from vpntun.errors import PortInUse
from vpntun.serving.listener import Listener


def connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "taken"),
    [("", (True, True)), ("::", (True, True)), ("0.0.0.0", (True, False)), ("::1", (False, True))],
)
def test_an_address_decides_from_where_clients_can_connect(host: str, taken: tuple[bool, bool]) -> None:
    port = free_port(socket.AF_INET6, "::")
    listener = Listener("the test socket", (host, port), option="--test", backlog=8)
    assert (connects("127.0.0.1", port), connects("::1", port)) == taken
    listener.close()
    assert (connects("127.0.0.1", port), connects("::1", port)) == (False, False)


def test_all_addresses_are_those_of_ipv4_where_ipv6_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def without_ipv6(family: int, *kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return made(family, *kind)

    port = free_port()
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", without_ipv6)
        listener = Listener("the test socket", ("", port), option="--test", backlog=8)
        with pytest.raises(PortInUse, match=f":{port} is in use.*--test"):
            Listener("the test socket", ("", port), option="--test", backlog=8)
    assert connects("127.0.0.1", port)
    listener.close()


def test_a_path_is_open_to_its_owner_alone_unless_more_are_wanted(tmp_path: Path) -> None:
    for mode in (0o600, 0o660):
        path = tmp_path / f"{mode}.sock"
        listener = Listener("the test socket", path, option="--test", backlog=8, mode=mode)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        listener.close()
        assert not path.exists()
