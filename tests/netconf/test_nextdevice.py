"""Route queries to the kernel that the tests run on, with its loopback device as the example."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from tests.carriers.test_udp_socket import LOCALHOST, both_versions, free_port
from tests.machine import no_more_descriptors, ordinary_user
from vpntun.core.endpoint import Flow
from vpntun.netconf.nextdevice import NextDevice
from vpntun.wire.checksum import TCP, UDP


@pytest.fixture
def device() -> Iterator[Callable[..., NextDevice]]:
    opened: list[NextDevice] = []

    def new(name: str, mark: int = 0) -> NextDevice:
        opened.append(NextDevice(name, mark))
        return opened[-1]

    yield new
    for each in opened:
        each.close()


def to(family: int, host: str = "", *, source: str = "", protocol: int = UDP, scope: int = 0) -> Flow:
    other = socket.inet_pton(family, host or LOCALHOST[family])
    return Flow(protocol, socket.inet_pton(family, source) if source else b"", 55555, other, 4444, scope)


@both_versions
@pytest.mark.parametrize("protocol", [UDP, TCP])
@pytest.mark.parametrize("mark", [0, 51820])
def test_packets_to_this_host_leave_through_the_loopback_device_and_no_other(
    device: Callable[..., NextDevice], family: int, protocol: int, mark: int
) -> None:
    free_port(family)  # skips where there is no such IP version
    assert device("lo", mark).is_for(to(family, protocol=protocol))
    assert device("lo", mark).is_for(to(family, protocol=protocol, source=LOCALHOST[family]))
    assert not device("tun77", mark).is_for(to(family, protocol=protocol))


def test_a_link_local_address_belongs_to_the_device_that_it_names(device: Callable[..., NextDevice]) -> None:
    number = socket.if_nametoindex("lo")
    assert device("lo").is_for(to(socket.AF_INET6, "fe80::1", scope=number))
    assert not device("lo").is_for(to(socket.AF_INET6, "fe80::1", scope=number + 1000))


def test_an_error_from_the_kernel_counts_as_no_and_the_next_query_is_answered(
    device: Callable[..., NextDevice],
) -> None:
    loopback = device("lo")
    assert not loopback.is_for(Flow(UDP, b"", 55555, bytes((127, 0, 1)), 4444))  # EINVAL
    assert loopback.is_for(to(socket.AF_INET))


def test_a_source_address_that_this_host_has_lost_is_left_out(device: Callable[..., NextDevice]) -> None:
    assert device("lo").is_for(to(socket.AF_INET, source="203.0.113.77"))


def test_an_ordinary_user_may_ask(device: Callable[..., NextDevice]) -> None:
    with ordinary_user():
        assert device("lo", 51820).is_for(to(socket.AF_INET))


def test_a_query_needs_no_free_descriptor(device: Callable[..., NextDevice]) -> None:
    loopback = device("lo")
    with no_more_descriptors():
        assert loopback.is_for(to(socket.AF_INET))
