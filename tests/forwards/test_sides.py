"""Sides of a tunnel: sockets of this machine, and sockets that are bound to a device."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack

import pytest

from tests.forwards.sockets import free_port
from tests.machine import HandLoop
from vpntun.forwards.sides import MOST_ANSWERED_PER_TURN, DeviceSide, MachineSide, addresses_of_device
from vpntun.runtime.resolver import Found, Lookups


@pytest.fixture
def lookups(loop: HandLoop, made: ExitStack) -> Lookups:
    new = Lookups(loop)
    made.callback(new.close)
    return new


@pytest.fixture
def machine(lookups: Lookups) -> MachineSide:
    return MachineSide(lookups)


@pytest.fixture
def tunnel(machine: MachineSide) -> DeviceSide:
    return DeviceSide(machine, "lo", lambda: ["127.0.0.1", "127.0.0.2"])


def test_all_addresses_of_the_machine_are_listened_on_by_one_socket(machine: MachineSide, made: ExitStack) -> None:
    port = free_port()
    (listener,) = machine.listen(socket.SOCK_STREAM, "", port)
    made.callback(listener.close)
    for host in ("127.0.0.1", "127.0.0.7"):
        made.enter_context(socket.create_connection((host, port)))
    if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
        made.enter_context(socket.create_connection(("::1", port)))


def test_an_address_of_the_machine_is_listened_on_alone(machine: MachineSide, made: ExitStack) -> None:
    port = free_port()
    (listener,) = machine.listen(socket.SOCK_STREAM, "127.0.0.2", port)
    made.callback(listener.close)
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        made.enter_context(socket.create_connection(("127.0.0.2", port)))


def test_each_address_of_the_tunnel_is_listened_on(tunnel: DeviceSide, made: ExitStack) -> None:
    port = free_port()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        listeners = tunnel.listen(kind, "", port)
        for each in listeners:
            made.callback(each.close)
        assert [each.getsockname() for each in listeners] == [("127.0.0.1", port), ("127.0.0.2", port)]


def test_what_is_open_already_is_closed_if_another_address_is_taken(tunnel: DeviceSide, made: ExitStack) -> None:
    port = free_port()
    taken = made.enter_context(socket.create_server(("127.0.0.2", port)))
    with pytest.raises(OSError, match="in use"):
        tunnel.listen(socket.SOCK_STREAM, "", port)
    taken.close()
    for each in tunnel.listen(socket.SOCK_STREAM, "", port):
        each.close()


def test_a_device_without_an_address_cannot_be_listened_on(machine: MachineSide) -> None:
    bare = DeviceSide(machine, "lo", list)
    with pytest.raises(OSError, match="lo has no address"):
        bare.listen(socket.SOCK_STREAM, "", free_port())


def test_sockets_of_a_device_are_bound_to_its_device(tunnel: DeviceSide, machine: MachineSide) -> None:
    with tunnel.open(socket.AF_INET, socket.SOCK_STREAM) as new:
        assert new.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == b"lo\0"
        assert not new.getblocking()
    with pytest.raises(OSError, match="No such device"):
        DeviceSide(machine, "gone", list).open(socket.AF_INET, socket.SOCK_STREAM)


def test_names_are_looked_up_as_the_machine_does(loop: HandLoop, machine: MachineSide, tunnel: DeviceSide) -> None:
    answers: list[Found] = []
    machine.look_up("localhost", 80, lambda found, _: answers.append(found))
    tunnel.look_up("localhost", 80, lambda found, _: answers.append(found))
    loop.until(lambda: len(answers) == 2)
    assert all(("127.0.0.1", 80) in [address for _, address in found] for found in answers)


def test_many_who_want_one_name_at_once_take_one_look_up(loop: HandLoop, made: ExitStack) -> None:
    asked: list[str] = []

    def find(host: str, port: int, flags: int) -> Found:
        asked.append(host)
        return [(socket.AF_INET, ("192.0.2.7", port))]

    lookups = Lookups(loop, find=find)
    made.callback(lookups.close)
    machine = MachineSide(lookups)
    answers: list[Found] = []
    many = 2 * MOST_ANSWERED_PER_TURN + 1
    for _ in range(many):
        machine.look_up("db", 80, lambda found, _: answers.append(found))
    loop.until(lambda: len(answers) == many)
    assert asked == ["db"]
    machine.look_up("db", 80, lambda found, _: answers.append(found))
    loop.until(lambda: len(answers) == many + 1)
    assert asked == ["db", "db"]


def test_the_addresses_of_a_device_are_those_of_the_kernel() -> None:
    assert "127.0.0.1" in addresses_of_device("lo")
