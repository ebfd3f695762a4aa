"""A host's own networks: only private ones, whatever address a stranger's DHCP server gave it; and its addresses."""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine import Clock
from tests.netconf.kernel import add_up, in_own_network
from vpntun.netconf.localnets import (
    PRIVATE,
    AddressOnDevice,
    OwnAddresses,
    addresses_only_of,
    own_networks,
    public_address,
    read_all,
)
from vpntun.netconf.netlink import InterfaceAddress, Netlink


def address_on(device: str, interface: str) -> InterfaceAddress:
    address = ip_interface(interface)
    return InterfaceAddress(device, str(address.ip), address.network)


def own(*interfaces: str) -> list[str]:
    return list(map(str, own_networks([address_on("eth0", each) for each in interfaces], but_of="tun3")))


@pytest.mark.parametrize(
    ("interface", "network"),
    [
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("172.16.0.1/12", "172.16.0.0/12"),
        ("192.168.1.7/24", "192.168.1.0/24"),
        ("100.86.122.57/30", "100.86.122.56/30"),
        ("169.254.3.4/16", "169.254.0.0/16"),
        ("fd01::1/64", "fd01::/64"),
        ("fe80::1/64", "fe80::/64"),
    ],
)
def test_a_private_network_counts(interface: str, network: str) -> None:
    assert own(interface) == [network]


@pytest.mark.parametrize(
    "interface",
    [
        "203.0.113.7/24",
        "9.255.255.255/7",
        "10.0.0.1/7",
        "172.31.0.1/11",
        "192.168.0.1/15",
        "100.64.0.1/9",
        "0.0.0.1/0",
        "2001:db8::1/64",
        "fd00::1/6",
        "::1/0",
    ],
)
def test_a_network_with_a_public_address_in_it_does_not_count(interface: str) -> None:
    assert own(interface) == []


def test_the_tunnels_own_device_does_not_count() -> None:
    assert own_networks([address_on("tun3", "10.1.2.3/24")], but_of="tun3") == []


def test_a_single_address_does_not_count_but_that_of_its_point_to_point_peer_does() -> None:
    assert own("10.1.2.3/32", "fd01::1/128") == []
    peer = InterfaceAddress("ppp0", "10.1.2.3", ip_network("10.1.2.4/32"))
    assert own_networks([peer], but_of="tun3") == [ip_network("10.1.2.4/32")]


def test_each_network_is_listed_once_and_in_order() -> None:
    assert own("fd01::1/64", "10.1.2.3/24", "10.1.1.3/24", "10.1.2.4/24") == [
        "10.1.1.0/24",
        "10.1.2.0/24",
        "fd01::/64",
    ]


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_no_own_network_contains_a_public_address(address: int, length: int, other: int) -> None:
    found = own(f"{ip_address(address)}/{length}")
    for network in map(ip_network, found):
        picked = network[other % network.num_addresses]
        assert any(each.version == 4 and picked in each for each in PRIVATE)


def test_only_addresses_that_no_other_device_has_are_the_devices_alone() -> None:
    addresses = [address_on("tun3", each) for each in ("192.168.1.2/32", "fd09::2/64", "10.9.0.2/24", "fe80::1/64")]
    addresses += [address_on("eth0", each) for each in ("192.168.1.2/24", "10.9.0.77/24")]
    assert addresses_only_of("tun3", addresses) == ["10.9.0.2", "fd09::2"]


def test_loopback_does_not_count() -> None:
    with Netlink() as netlink:
        addresses = list(netlink.addresses())
    assert InterfaceAddress("lo", "127.0.0.1", ip_network("127.0.0.0/8")) in addresses
    assert "127.0.0.0/8" not in map(str, own_networks(addresses, but_of="tun3"))


# Addresses


ONE, TWO = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


class Kernel:
    """A fake kernel that announces changes, and answers while it `works`."""

    def __init__(self) -> None:
        self.found: list[AddressOnDevice] = [(ONE, "tun0")]
        self.reads = 0
        self.changed = False
        self.works = True

    def has_changed(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def read(self) -> list[AddressOnDevice]:
        self.reads += 1
        if not self.works:
            raise OSError
        return self.found


def test_the_addresses_are_read_only_after_a_change_and_only_on_demand() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    for _ in range(100):
        clock.now += 1
        assert ONE in own
        assert TWO not in own
    assert kernel.reads == 1
    kernel.found, kernel.changed = [(TWO, "eth0")], True
    clock.now += 1000
    assert kernel.reads == 1
    assert TWO in own
    assert ONE not in own
    assert own.of_device(4) is None
    assert kernel.reads == 2


def test_addresses_that_keep_changing_are_read_once_a_second() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    for _ in range(80):
        kernel.changed = True
        clock.now += 0.125
        assert ONE in own
    assert kernel.reads == 1 + 10


def test_the_former_addresses_stay_valid_until_the_kernel_answers_again() -> None:
    kernel, clock = Kernel(), Clock()
    own = OwnAddresses("tun0", kernel.has_changed, kernel.read, clock)
    kernel.works, kernel.changed, kernel.found = False, True, [(TWO, "tun0")]
    clock.now += 2
    assert ONE in own
    assert own.of_device(4) == ONE
    kernel.works = True
    assert ONE in own
    clock.now += 2
    assert TWO in own
    assert own.of_device(4) == TWO


def test_the_devices_address_is_the_first_that_is_not_link_local() -> None:
    six, local = ip_address("fd00::1").packed, ip_address("fe80::1").packed
    found: list[AddressOnDevice] = [(local, "tun0"), (ONE, "eth0"), (six, "tun0"), (b"\xfd" * 16, "tun0")]
    own = OwnAddresses("tun0", lambda: False, lambda: found)
    assert own.of_device(16) == six
    assert own.of_device(4) is None


def test_the_kernel_lists_the_loopback_address() -> None:
    assert (bytes([127, 0, 0, 1]), "lo") in read_all()


@in_own_network
def test_the_public_address_is_the_one_on_the_way_to_the_internet() -> None:
    assert public_address() is None
    with Netlink() as netlink:
        add_up(netlink, "eth0", "192.168.1.2/24", "2a00:1::2/64")
        assert public_address() is None  # there is no way to the internet
        route = partial(netlink.requests.route, dst="default")
        route("add", family=socket.AF_INET, oif=netlink.index_of("eth0"))
        assert public_address() is None
        route("add", family=socket.AF_INET6, oif=netlink.index_of("eth0"))
        assert public_address() == ip_address("2a00:1::2")
        add_up(netlink, "eth1", "11.0.0.2/24")
        route("replace", family=socket.AF_INET, oif=netlink.index_of("eth1"))
        assert public_address() == ip_address("11.0.0.2")
