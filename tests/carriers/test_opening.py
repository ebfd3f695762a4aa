"""The sockets of a tunnel: which are opened, on which port, and that all of them close with it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.machine import HandLoop
from vpntun.carriers.base import Carrier
from vpntun.carriers.opening import open_carriers
from vpntun.carriers.sockets import families
from vpntun.carriers.tcp import TcpCarrier
from vpntun.carriers.udp import UdpCarrier
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import Tunnel
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.errors import PortInUse
from vpntun.types import CarrierName, Transport

OWN = KeyPair.of(clamp(b"o" * 32))
CALLED = PeerSettings(b"p" * 32, (), host="192.0.2.1", port=55555)
CALLING = PeerSettings(b"q" * 32, ())


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def tunnel(listen_on: Transport | None, port: int | None, *peers: PeerSettings) -> Tunnel:
    return Tunnel("tun3", OWN, peers, port, listen_on)


def ports_of(carriers: dict[CarrierName, Carrier]) -> dict[str, list[int]]:
    """The port of every socket, by carrier."""
    udp, tcp = carriers["udp"], carriers["tcp"]
    assert isinstance(udp, UdpCarrier)
    assert isinstance(tcp, TcpCarrier)
    return {
        "udp": [port_of(each.fileno()) for each in udp.sockets.values()],
        "tcp": [port_of(each.fileno()) for each in tcp._listeners],
    }


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
    carriers = open_carriers(tunnel(listen_on, port, peer), 0, loop, stack)
    each = [port] * len(families())
    assert ports_of(carriers) == {"udp": each if udp else [], "tcp": each if tcp else []}
    assert carriers["udp"].can_call == udp
    assert (carriers["udp"].port, carriers["tcp"].port) == (port if udp else 0, port if tcp and listen_on else 0)


def test_without_a_port_there_is_no_listener_and_udp_has_any(loop: HandLoop, stack: ExitStack) -> None:
    carriers = open_carriers(tunnel(None, None, CALLED), 0, loop, stack)
    assert ports_of(carriers) == {"udp": [0] * len(families()), "tcp": []}


def test_everything_is_closed_with_the_stack_also_if_the_last_carrier_fails(loop: HandLoop) -> None:
    port = free_port(socket.AF_INET, socket.SOCK_STREAM)
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(families()[-1], socket.SOCK_STREAM) as taken:
        if taken.family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("", port))
        taken.listen()
        with ExitStack() as stack, pytest.raises(PortInUse, match=f"TCP port {port} is in use"):
            open_carriers(tunnel("auto", port, CALLING), 0, loop, stack)
    assert len(os.listdir("/proc/self/fd")) == before
