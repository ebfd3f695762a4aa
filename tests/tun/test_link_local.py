"""A device that is made here gets no link-local address by itself; others keep theirs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.machine import logged
from tests.netconf.kernel import add, in_own_network
from vpntun.netconf.netlink import Netlink
from vpntun.tun.device import KernelDevice
from vpntun.tun.link_local import make_no_link_local
from vpntun.tun.persistent import make

NAME = "test0"

needs_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


def up_with_addresses(device: str = NAME) -> list[str]:
    """Bring a device up, and return its IPv6 addresses."""
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    shown = subprocess.run(["ip", "-6", "-json", "address", "show", "dev", device], check=True, capture_output=True)
    return [each["local"] for link in json.loads(shown.stdout) for each in link.get("addr_info", [])]


@needs_tun
@in_own_network
def test_a_new_device_has_no_link_local_address() -> None:
    device = KernelDevice(NAME)
    assert up_with_addresses() == []
    device.close()


@needs_tun
@in_own_network
@pytest.mark.parametrize("persists", [False, True])
def test_a_new_tap_device_has_one_for_neighbour_discovery_needs_it_on_an_ethernet(persists: bool) -> None:
    assert not persists or make(NAME, kind="tap")
    device = KernelDevice(NAME, "tap")
    assert [each[:6] for each in up_with_addresses()] == ["fe80::"]
    device.close()


@needs_tun
@in_own_network
def test_a_persistent_device_is_made_without_one_and_keeps_what_its_owner_sets_later() -> None:
    assert make(NAME)
    assert up_with_addresses() == []
    subprocess.run(["ip", "link", "set", NAME, "down"], check=True)
    subprocess.run(["ip", "link", "set", NAME, "addrgenmode", "eui64"], check=True)
    device = KernelDevice(NAME)
    assert [each[:6] for each in up_with_addresses()] == ["fe80::"]
    device.close()


@in_own_network
def test_a_kernel_that_has_no_ipv6_on_the_device_is_not_worth_a_line() -> None:
    with Netlink() as netlink:
        add(netlink, NAME)
    subprocess.run(["ip", "link", "set", NAME, "mtu", "1000"], check=True)  # takes IPv6 off the device
    with logged() as lines:
        make_no_link_local(NAME)
    assert lines == []


@in_own_network
def test_a_refusal_is_a_line_under_v() -> None:
    with logged() as lines:
        make_no_link_local("gone0")
    [line] = lines
    assert "gone0 will have a link-local address of its own: " in line
