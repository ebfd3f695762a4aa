"""What every carrier does with a fresh socket: the mark of a full tunnel, the port, and both IP versions."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.carriers.test_udp_socket import free_port
from tests.carriers.user import RecordingUser
from tests.datapath.ends import new_accepted
from tests.machine import HandLoop, needs_root, ordinary_user
from vpntun.carriers.base import ConnectionOwner, Stream
from vpntun.carriers.listening import TcpListener
from vpntun.carriers.sockets import address_at, bind, families, host_of, origin_of, packed, scope_of, where_of
from vpntun.carriers.tcp import Dialling, TcpCarrier
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.carriers.udp import UdpCarrier
from vpntun.carriers.udp_socket import UdpSocket
from vpntun.errors import PortInUse, PrivilegeError, VpntunError
from vpntun.types import SocketAddress
from vpntun.wire.stream_framing import SharedBuffer

MARK = 0xFFFF_CA6C  # more than 31 bits
OWNER = ConnectionOwner()


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
    Dialling(address, loop, dialled.append, OWNER, SharedBuffer(), MARK)
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


@needs_root
def test_a_mark_can_be_changed_and_removed_while_the_sockets_are_in_use(loop: HandLoop) -> None:
    carriers = UdpCarrier(loop, 0, answers_from_where_asked=False), TcpCarrier(loop, None)
    listening = socket.create_server(("127.0.0.1", 0))
    dialled: list[Stream | None] = []
    carriers[1].start(RecordingUser())
    for count, mark in enumerate((0, MARK, 7, 0), 1):
        for carrier in carriers:
            carrier.set_mark(mark)
        carriers[1].dial(carriers[0].sockets[socket.AF_INET].endpoint(listening.getsockname()), OWNER, dialled.append)
        while len(dialled) < count:
            loop.poll(0.01)
        used = [each.fileno() for each in carriers[0].sockets.values()]
        used += [each.fileno() for each in dialled if isinstance(each, TcpConnection)]
        assert {mark_of(descriptor) for descriptor in used} == {mark}
    carriers[1].dial(carriers[0].sockets[socket.AF_INET].endpoint(listening.getsockname()), OWNER, dialled.append)
    carriers[1].set_mark(MARK)
    while len(dialled) < 5:
        loop.poll(0.01)
    assert isinstance(dialled[-1], TcpConnection)
    assert mark_of(dialled[-1].fileno()) == MARK, "it was being dialled when the mark changed"
    for each in dialled:
        assert each is not None
        each.close()
    carriers[1].set_mark(MARK)  # those that were closed are left alone
    for carrier in carriers:
        carrier.close()
    listening.close()


def test_no_mark_is_set_without_a_full_tunnel(loop: HandLoop) -> None:
    datagrams = udp(loop, 0)
    assert mark_of(datagrams.fileno()) == 0
    datagrams.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda loop: udp(loop, MARK),
        lambda loop: TcpListener(socket.AF_INET, 0, MARK),
        lambda loop: Dialling(("127.0.0.1", 9), loop, lambda _: None, ConnectionOwner(), SharedBuffer(), MARK),
    ],
)
def test_without_the_privilege_marking_is_an_error_that_leaves_no_descriptor(
    loop: HandLoop, make: Callable[[HandLoop], object]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with ordinary_user(), pytest.raises(PrivilegeError, match="CAP_NET_ADMIN"):
        make(loop)
    assert len(os.listdir("/proc/self/fd")) == before


# Binding


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_socket_is_bound_to_its_port_and_to_its_ip_version_alone(family: int, kind: int) -> None:
    port = free_port(family, kind)
    with bind(socket.socket(family, kind), port, "TCP") as bound:
        assert bound.getsockname()[:2] == ("0.0.0.0" if family == socket.AF_INET else "::", port)
        if family == socket.AF_INET6:
            assert bound.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_without_a_port_it_stays_unbound() -> None:
    with bind(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0, "UDP") as bound:
        assert bound.getsockname()[1] == 0


def test_a_port_in_use_is_named_and_the_socket_is_closed() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with pytest.raises(PortInUse, match=f"UDP port {taken.getsockname()[1]} is in use"):
            bind(new, taken.getsockname()[1], "UDP")
    assert new.fileno() == -1


@needs_root
def test_a_port_of_the_systems_is_a_question_of_permission() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if not lowest:
        pytest.skip("this kernel gives every port to everybody")
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ordinary_user(), pytest.raises(PrivilegeError, match="choose a port above 1023, or run as root"):
        bind(new, min(lowest, 1024) - 1, "UDP")
    assert new.fileno() == -1


def test_any_other_refusal_is_said_with_the_systems_word() -> None:
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    new.bind(("127.0.0.1", 0))
    with pytest.raises(VpntunError, match="UDP port 1234 cannot be bound: Invalid argument"):
        bind(new, 1234, "UDP")
    assert new.fileno() == -1


def test_the_ip_versions_are_those_that_this_kernel_has_sockets_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert families()[0] == socket.AF_INET
    real = socket.socket

    def without_ipv6(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, kind)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert families() == [socket.AF_INET]


@pytest.mark.parametrize(
    ("address", "host", "scope"),
    [
        (("203.0.113.2", 1), b"\xcb\x00\x71\x02", 0),
        (("2001:db8::2", 1, 0, 0), b"\x20\x01\x0d\xb8" + bytes(11) + b"\x02", 0),
        (("fe80::1", 1, 0, 3), b"\xfe\x80" + bytes(13) + b"\x01", 3),
    ],
)
def test_an_address_is_its_bytes_and_its_scope(address: SocketAddress, host: bytes, scope: int) -> None:
    assert packed(address) == host
    assert scope_of(address) == scope
    assert origin_of(address) == host + b"\x00\x01"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("203.0.113.2", 1), "203.0.113.2"),
        (("2001:db8::2", 1, 0, 0), "2001:db8::2"),
        (("fe80::1", 1, 0, socket.if_nametoindex("lo")), "fe80::1%lo"),
    ],
)
def test_an_address_is_written_with_its_zone_and_read_back(address: SocketAddress, text: str) -> None:
    assert host_of(address) == text
    assert address_at(text, 1) == address
    assert where_of(address) == (f"[{text}]:1" if ":" in text else f"{text}:1")


def test_the_zone_of_a_device_that_is_gone_is_its_number_and_a_name_that_no_device_has_is_no_address() -> None:
    assert where_of(("fe80::1", 1, 0, 999_999)) == "[fe80::1%999999]:1"
    for text in ("fe80::1%gone9", "remote.example.org", "", "\udc80"):
        assert address_at(text, 1) is None
