"""Selection of packets by peer, and by network of the source or the destination."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.test_describing_frames import IPV4, frame
from tests.datapath.ends import ipv6
from tests.wire.packets import udp
from vpntun.capture.selection import Selection


def test_without_conditions_everything_is_taken() -> None:
    assert Selection().takes_peer(b"any")
    assert Selection().takes(udp(4, b""))


def test_only_the_packets_of_the_peers_are_taken() -> None:
    assert Selection([b"one", b"two"]).takes_peer(b"two")
    assert not Selection([b"one", b"two"]).takes_peer(b"three")


@pytest.mark.parametrize(
    ("network", "taken"),
    [
        *(("100.64.0.1/32", True), ("10.1.2.3/32", True), ("100.64.0.0/31", True), ("0.0.0.0/0", True)),
        *(("100.64.0.2/32", False), ("10.1.2.0/31", False), ("::/0", False), ("::6440:1/128", False)),
    ],
)
def test_a_network_is_that_of_the_source_or_the_destination(network: str, taken: bool) -> None:
    packet = udp(4, b"from 100.64.0.1 to 10.1.2.3")
    assert Selection(networks=[ip_network(network)]).takes(packet) == taken
    assert Selection(networks=[ip_network("203.0.113.0/24"), ip_network(network)]).takes(packet) == taken


@given(st.ip_addresses(v=6), st.integers(0, 128), st.integers(0, 127))
def test_networks_contain_the_addresses_that_the_standard_library_says(
    address: IPv6Address, length: int, changed: int
) -> None:
    network = ip_network(f"{address}/{length}", strict=False)
    other = IPv6Address(int(address) ^ (1 << changed))
    packet = ipv6(str(other), "ff00::1")
    assert Selection(networks=[network]).takes(packet) == (other in network or ip_address("ff00::1") in network)


@pytest.mark.parametrize("tags", [(), (0x8100_0007,), (0x88A8_0064, 0x8100_0007)])
def test_of_a_frame_the_ip_packet_behind_header_and_tags_decides(tags: tuple[int, ...]) -> None:
    ours, theirs = (Selection(networks=[ip_network(each)]) for each in ("10.1.2.3/32", "10.1.2.4/32"))
    carrying = frame(IPV4, udp(4, b"from 100.64.0.1 to 10.1.2.3"), *tags)
    assert Selection().takes_frame(carrying)
    assert ours.takes_frame(carrying)
    assert not theirs.takes_frame(carrying)


@pytest.mark.parametrize(
    "without", [frame(0x0806, udp(4, b"")), frame(IPV4, b"E"), frame(IPV4, b"\x45" + bytes(50)), frame(0x88B5, b"")]
)
def test_a_frame_without_a_whole_ip_packet_is_in_no_network(without: bytes) -> None:
    assert Selection().takes_frame(without)
    assert not Selection(networks=[ip_network("0.0.0.0/0"), ip_network("::/0")]).takes_frame(without)


@given(st.binary(min_size=14, max_size=80))
def test_arbitrary_frames_raise_nothing(given: bytes) -> None:
    Selection(networks=[ip_network("10.0.0.0/8")]).takes_frame(given)
