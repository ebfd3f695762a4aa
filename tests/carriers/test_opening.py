"""The sockets of a tunnel: which are opened, on which port, and that all of them close with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.carriers.test_udp import free_port
from tests.machine import HandLoop
from vpntun.carriers.opening import open_listeners, open_udp
from vpntun.carriers.sockets import families
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.errors import PortInUse
from vpntun.types import Transport

OWN = KeyPair.of(clamp(b"o" * 32))
CALLED = PeerSettings(b"p" * 32, (), host="192.0.2.1", port=55555)
CALLING = PeerSettings(b"q" * 32, ())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def tunnel(listen_on: Transport | None, port: int | None, *peers: PeerSettings) -> Tunnel:
    return Tunnel("tun3", OWN, peers, port, listen_on)


def port_of(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as same:
        return int(same.getsockname()[1])


@pytest.mark.parametrize(
    ("listen_on", "peer", "udp", "tcp"),
    [
        ("auto", CALLING, True, True),
        ("udp", CALLING, True, False),
        ("tcp", CALLING, False, True),
        ("tcp", CALLED, True, True),  # a peer may be called over UDP
        (None, CALLED, True, False),
    ],
)
def test_there_is_one_socket_for_each_ip_version_where_the_tunnel_needs_it(
    loop: HandLoop, stack: ExitStack, listen_on: Transport | None, peer: PeerSettings, udp: bool, tcp: bool
) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    wanted = tunnel(listen_on, port, peer)
    assert list(open_udp(wanted, 0, loop, stack)) == (families() if udp else [])
    assert len(open_listeners(wanted, 0, stack)) == (len(families()) if tcp else 0)


def test_both_carriers_and_versions_share_the_port_that_was_asked_for(loop: HandLoop, stack: ExitStack) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    wanted = tunnel("auto", port, CALLING)
    ports = [port_of(each.fileno()) for each in open_udp(wanted, 0, loop, stack).values()]
    ports += [port_of(each.fileno()) for each in open_listeners(wanted, 0, stack)]
    assert ports == [port] * 2 * len(families())


def test_without_a_port_there_is_no_listener_and_udp_has_any(loop: HandLoop, stack: ExitStack) -> None:
    wanted = tunnel(None, None, CALLED)
    assert open_listeners(wanted, 0, stack) == []
    assert all(port_of(each.fileno()) == 0 for each in open_udp(wanted, 0, loop, stack).values())


def test_what_was_opened_is_closed_with_the_stack_also_where_the_next_cannot_be(loop: HandLoop) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(families()[-1], socket.SOCK_STREAM) as taken:
        if taken.family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("", port))
        taken.listen()
        with ExitStack() as stack:
            open_udp(tunnel("auto", port, CALLING), 0, loop, stack)
            with pytest.raises(PortInUse, match=f"TCP port {port} is in use"):
                open_listeners(tunnel("auto", port, CALLING), 0, stack)
    assert len(os.listdir("/proc/self/fd")) == before
