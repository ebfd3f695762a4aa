"""Where IPv6 is disabled, what a tunnel has of IPv6 is left out, and a notice says so once."""

from __future__ import annotations

from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

from tests.machine import logged
from tests.netconf.kernel import add, in_own_network
from vpntun.netconf.netlink import Netlink
from vpntun.tun.ipv6 import CONF, carried_addresses, carried_networks, carries_ipv6

NAME = "test0"
ADDRESSES = [ip_interface(each) for each in ("10.9.0.2/24", "fd09::2/64", "fd0a::2/64")]
NETWORKS = [ip_network(each) for each in ("10.0.0.0/8", "fd00::/8")]


def switch(device: str, value: str) -> None:
    (CONF / device / "disable_ipv6").write_text(value)


@pytest.mark.parametrize(
    ("settings", "carries"),
    [
        ({"default": "0"}, True),
        ({"default": "1"}, False),
        ({"default": "1", NAME: "0"}, True),
        ({"default": "0", NAME: "1"}, False),
        ({}, False),
    ],
)
def test_a_device_follows_its_own_setting_or_the_one_for_new_devices(
    tmp_path: Path, settings: dict[str, str], carries: bool
) -> None:
    for device, value in settings.items():
        (tmp_path / device).mkdir()
        (tmp_path / device / "disable_ipv6").write_text(f"{value}\n")
    assert carries_ipv6(NAME, 1280, tmp_path) is carries
    assert not carries_ipv6(NAME, 1279, tmp_path)


@in_own_network
def test_with_ipv6_everything_stays_and_nothing_is_logged() -> None:
    switch("default", "0")
    with logged() as lines:
        assert carried_addresses(NAME, 1280, ADDRESSES) == ADDRESSES
        assert carried_networks(NAME, 1280, NETWORKS) == NETWORKS
    assert lines == []


@in_own_network
def test_without_ipv6_its_addresses_and_networks_are_left_out_with_a_notice_each() -> None:
    switch("all", "1")
    with logged(25) as lines:
        assert carried_addresses(NAME, 1400, ADDRESSES) == ADDRESSES[:1]
        assert carried_networks(NAME, 1400, NETWORKS) == NETWORKS[:1]
    assert lines == [
        "IPv6 is disabled on test0, or its MTU is below 1280: left out fd09::2/64, fd0a::2/64",
        "IPv6 is disabled on test0, or its MTU is below 1280: the tunnel carries no IPv6",
    ]
    with logged() as lines:
        assert carried_addresses(NAME, 1400, ADDRESSES[:1]) == ADDRESSES[:1]
        assert carried_networks(NAME, 1400, []) == []
    assert lines == []


@in_own_network
def test_a_device_that_exists_is_asked_itself() -> None:
    switch("all", "1")
    with Netlink() as netlink:
        add(netlink, NAME)
    switch(NAME, "0")
    assert carried_addresses(NAME, 1400, ADDRESSES) == ADDRESSES
