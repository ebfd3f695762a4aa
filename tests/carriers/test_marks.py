"""Mark of a full tunnel: all its sockets have it, accepted ones included; lacking the privilege is an error."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

import pytest

from tests.datapath.ends import new_accepted
from tests.machine import HandLoop, needs_root, ordinary_user
from vpntun.carriers.base import ConnectionOwner
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.tcp import Dialling
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.carriers.udp_socket import UdpSocket
from vpntun.errors import PrivilegeError
from vpntun.wire.framing import SharedBuffer

MARK = 0xFFFF_CA6C  # more than 31 bits
OWNER = ConnectionOwner(SharedBuffer())


def mark_of(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as same:
        return int.from_bytes(same.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4), sys.byteorder)


def udp(loop: HandLoop, mark: int) -> UdpSocket:
    return UdpSocket(socket.AF_INET, 0, loop, answers_from_where_asked=False, mark=mark)


@needs_root
def test_every_socket_of_a_tunnel_carries_its_mark(loop: HandLoop) -> None:
    datagrams, listener = udp(loop, MARK), TcpListener(socket.AF_INET, 0, MARK)
    with socket.socket(fileno=os.dup(listener.fileno())) as same:
        address = ("127.0.0.1", same.getsockname()[1])
    dialled: list[TcpConnection | None] = []
    Dialling(socket.AF_INET, address, loop, dialled.append, OWNER, datagrams.mark)
    loop.until(lambda: dialled)
    accepted = next(listener.accept(loop, new_accepted(loop)))
    assert dialled[0] is not None
    for each in (datagrams, listener, dialled[0], accepted):
        assert mark_of(each.fileno()) == MARK
    datagrams.close()
    listener.close()
    loop.watch(accepted.fileno(), lambda: None)
    loop.watch(dialled[0].fileno(), lambda: None)
    dialled[0].close()
    accepted.close()


def test_no_mark_is_set_without_a_full_tunnel(loop: HandLoop) -> None:
    datagrams = udp(loop, 0)
    assert mark_of(datagrams.fileno()) == 0
    datagrams.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda loop: udp(loop, MARK),
        lambda loop: TcpListener(socket.AF_INET, 0, MARK),
        lambda loop: Dialling(
            socket.AF_INET, ("127.0.0.1", 9), loop, lambda _: None, ConnectionOwner(SharedBuffer()), MARK
        ),
    ],
)
def test_without_the_privilege_marking_is_an_error_that_leaves_no_descriptor(
    loop: HandLoop, make: Callable[[HandLoop], object]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ordinary_user(), pytest.raises(PrivilegeError, match="CAP_NET_ADMIN"):
        make(loop)
    assert len(os.listdir("/proc/self/fd")) == before
