"""What is read and asked through netlink, in a network that has nothing but what the test has made."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.machine import ordinary_user
from tests.netconf.kernel import add_up, in_own_network
from vpntun.errors import DeviceError, PrivilegeError
from vpntun.netconf.netlink import AF_INET, AF_INET6, MAIN, InterfaceAddress, Netlink, family_of


def test_the_kernel_has_a_number_for_each_ip_version() -> None:
    assert (family_of(4), family_of(6)) == (AF_INET, AF_INET6)


@pytest.mark.parametrize(
    ("address", "network", "somewhere_else"),
    [
        ("10.0.0.1", "10.0.0.0/24", True),
        ("10.0.0.0", "10.0.0.0/31", True),
        ("10.0.0.1", "10.0.0.1/32", False),
        ("10.0.0.1", "10.0.0.2/32", True),
        ("fd00::1", "fd00::1/128", False),
        ("fd00::1", "fd00::/64", True),
    ],
)
def test_an_address_alone_makes_nothing_reachable(address: str, network: str, somewhere_else: bool) -> None:
    assert InterfaceAddress("eth0", address, ip_network(network)).is_somewhere_else is somewhere_else


@in_own_network
def test_devices_have_numbers_and_one_that_is_not_there_has_gone() -> None:
    with Netlink() as netlink:
        add_up(netlink, "test0")
        assert netlink.link("test0").name == "test0"
        assert netlink.index_of("test0") == netlink.link("test0").number != netlink.index_of("lo")
        with pytest.raises(DeviceError, match="gone0 is gone"):
            netlink.index_of("gone0")


@in_own_network
def test_a_device_has_its_kind_its_state_and_ipv6_unless_that_is_disabled_or_its_mtu_is_too_small() -> None:
    with Netlink() as netlink:
        add_up(netlink, "test0")
        one = netlink.link("test0")
        assert (one.kind, one.mtu, one.is_up, one.has_carrier, one.has_ipv6) == ("veth", 1500, True, True, True)
        assert one in list(netlink.links())
        disable = Path("/proc/sys/net/ipv6/conf/test0/disable_ipv6")
        disable.write_text("1")
        assert not netlink.link("test0").has_ipv6
        disable.write_text("0")
        assert netlink.link("test0").has_ipv6
        netlink.requests.link("set", index=one.number, mtu=1000)
        assert not netlink.link("test0").has_ipv6


@in_own_network
def test_addresses_come_with_what_they_make_reachable() -> None:
    with Netlink() as netlink:
        add_up(netlink, "test0", "10.9.0.1/24", "fd09::1/64")
        index = netlink.index_of("test0")
        netlink.requests.addr("add", index=index, local="10.8.0.1", address="10.8.0.2", prefixlen=32)
        found = {each for each in netlink.addresses() if not each.address.startswith("fe80")}
    assert found == {
        InterfaceAddress("test0", "10.9.0.1", ip_network("10.9.0.0/24")),
        InterfaceAddress("test0", "fd09::1", ip_network("fd09::/64")),
        InterfaceAddress("test0", "10.8.0.1", ip_network("10.8.0.2/32")),
    }


@in_own_network
def test_the_routes_of_a_table_are_those_of_one_device_or_of_all() -> None:
    with Netlink() as netlink:
        for name in ("one", "two"):
            add_up(netlink, name)
        for name, destination, table in (
            ("one", "10.1.0.0/16", 7),
            ("two", "10.2.0.0/16", 7),
            ("one", "10.3.0.0/16", 8),
            ("two", "0.0.0.0/0", 7),
            ("one", "fd01::/64", 7),
        ):
            family = family_of(6 if ":" in destination else 4)
            netlink.requests.route("add", family=family, dst=destination, oif=netlink.index_of(name), table=table)
        assert set(netlink.routes(4, 7)) == {*map(ip_network, ("10.1.0.0/16", "10.2.0.0/16", "0.0.0.0/0"))}
        assert list(netlink.routes(4, 7, "one")) == [ip_network("10.1.0.0/16")]
        assert list(netlink.routes(6, 7)) == [ip_network("fd01::/64")]
        assert list(netlink.routes(4, MAIN)) == []


@in_own_network
def test_the_rules_are_those_of_one_ip_version() -> None:
    with Netlink() as netlink:
        netlink.requests.rule("add", family=AF_INET, priority=5000, table=7)
        netlink.requests.rule("add", family=AF_INET6, priority=6000, table=7)
        priorities = {version: [rule.priority for rule in netlink.rules(version)] for version in (4, 6)}
    assert 5000 in priorities[4]
    assert 6000 not in priorities[4]
    assert 6000 in priorities[6]


@in_own_network
def test_a_request_is_done_is_so_already_or_says_what_could_not_be_set() -> None:
    with Netlink() as netlink:
        add_up(netlink, "test0")
        index = netlink.index_of("test0")

        def add(address: str) -> bool:
            return netlink.attempt(
                "the address", netlink.requests.addr, "add", index=index, address=address, prefixlen=24
            )

        assert add("10.9.0.1") is True
        assert add("10.9.0.1") is False
        with pytest.raises(DeviceError, match="the MTU cannot be set: Invalid argument"):
            netlink.attempt("the MTU", netlink.requests.link, "set", index=index, mtu=10**9)


@in_own_network
def test_without_the_right_the_operator_is_told_what_to_do() -> None:
    said = "no right to set the MTU: run as root"
    with Netlink() as netlink:
        netlink.open_for_changes()  # an ordinary user may not be able to read this Python's modules
        with ordinary_user(), pytest.raises(PrivilegeError, match=said):
            netlink.attempt("the MTU", netlink.requests.link, "set", index=1, mtu=1400)
