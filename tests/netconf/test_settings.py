"""What is set up on one device is set up as a whole, or not at all, and taken back as a whole."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.netconf.kernel import add, add_bridge, add_up, in_own_network
from vpntun.errors import ConfigurationError, DeviceError
from vpntun.netconf.journal import Journal, entries_of, path_of
from vpntun.netconf.netlink import MAIN, Netlink
from vpntun.netconf.settings import DeviceSettings

DEVICE = "test0"
ADDRESSES = [ip_interface("192.168.0.1/24"), ip_interface("fd77::1/64")]
ROUTES = [ip_network("10.0.0.0/8"), ip_network("fd88::/64")]
GATEWAYS = dict(zip(ROUTES, map(ip_address, ("192.168.0.2", "fd77::2")), strict=True))


def make_device() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)


def monitor() -> tuple[int, bool, set[str], set[str]]:
    """The device's MTU, whether it is up, its addresses, and the networks routed to it."""
    with Netlink() as netlink:
        link = netlink.link(DEVICE)
        addresses = {
            f"{each.address}/{each.network.prefixlen}" for each in netlink.addresses() if each.device == DEVICE
        }
        routes = {str(each) for version in (4, 6) for each in netlink.routes(version, MAIN, DEVICE)}
    return (
        link.mtu,
        link.is_up,
        {each for each in addresses if not each.startswith("fe80")},
        {each for each in routes if not each.startswith("fe80")},
    )


@in_own_network
def test_everything_is_set_up_and_taken_back() -> None:
    make_device()
    before = monitor()
    settings = DeviceSettings(DEVICE)
    settings.apply(ADDRESSES, ROUTES, 1380)
    mtu, up, addresses, routes = monitor()
    assert (mtu, up, addresses) == (1380, True, {"192.168.0.1/24", "fd77::1/64"})
    assert routes == {"192.168.0.0/24", "fd77::/64", "10.0.0.0/8", "fd88::/64"}
    settings.undo()
    assert monitor() == before


@in_own_network
def test_a_route_with_a_gateway_is_set_after_the_address_that_leads_there_and_taken_back() -> None:
    make_device()
    before = monitor()
    settings = DeviceSettings(DEVICE)
    settings.apply(ADDRESSES, ROUTES, None, gateways=GATEWAYS)
    with Netlink() as netlink:
        found = {
            each.get_attr("RTA_GATEWAY")
            for family in (2, 10)
            for each in netlink.requests.get_routes(family=family, table=MAIN)
        }
    assert found >= {"192.168.0.2", "fd77::2"}
    settings.undo()
    assert monitor() == before


@in_own_network
def test_without_an_mtu_the_devices_stays() -> None:
    make_device()
    DeviceSettings(DEVICE).apply(ADDRESSES, [], None)
    assert monitor()[:2] == (1500, True)


@in_own_network
def test_a_mac_address_and_a_bridge_are_there_before_the_device_is_up_and_taken_back(tmp_path: Path) -> None:
    mac = bytes.fromhex("020000000007")
    with Netlink() as netlink:
        add(netlink, DEVICE)
        add_bridge(netlink, "br0")
        former = netlink.link(DEVICE)
        settings = DeviceSettings(DEVICE, Journal(DEVICE, tmp_path))
        settings.apply([], [], None, mac=mac, bridge="br0")
        link = netlink.link(DEVICE)
        assert (link.mac, link.master, link.is_up) == (mac, netlink.index_of("br0"), True)
        assert [each["kind"] for each in entries_of(path_of(DEVICE, tmp_path))] == ["Mac", "BridgePort", "Up"]
        settings.undo()
        link = netlink.link(DEVICE)
        assert (link.mac, link.master, link.is_up) == (former.mac, 0, False)
    assert entries_of(path_of(DEVICE, tmp_path)) == []


@in_own_network
def test_a_missing_bridge_is_an_error_and_nothing_has_changed() -> None:
    make_device()
    before = monitor()
    with pytest.raises(DeviceError, match="there is no bridge br0"):
        DeviceSettings(DEVICE).apply(ADDRESSES, ROUTES, 1380, bridge="br0")
    assert monitor() == before


@in_own_network
def test_a_device_may_be_left_down() -> None:
    make_device()
    DeviceSettings(DEVICE).apply([], [], 1380, up=False)
    assert monitor()[:2] == (1380, False)


@in_own_network
def test_where_one_step_fails_nothing_has_changed() -> None:
    make_device()
    before = monitor()
    with Netlink() as netlink:
        add_up(netlink, "other")
        netlink.requests.route("add", dst="10.0.0.0/8", oif=netlink.index_of("other"))
    with pytest.raises(ConfigurationError, match="through another device"):
        DeviceSettings(DEVICE).apply(ADDRESSES, ROUTES, 1380)
    assert monitor() == before


@in_own_network
def test_what_was_there_before_stays_at_the_end() -> None:
    with Netlink() as netlink:
        add_up(netlink, DEVICE, "192.168.0.1/24")
    settings = DeviceSettings(DEVICE)
    settings.apply(ADDRESSES, [], 1500)
    settings.undo()
    assert monitor()[1:3] == (True, {"192.168.0.1/24"})


@in_own_network
def test_a_second_application_changes_what_differs() -> None:
    make_device()
    settings = DeviceSettings(DEVICE)
    settings.apply(ADDRESSES, ROUTES, 1380)
    settings.apply(ADDRESSES[:1], ROUTES[:1], 1380)
    assert monitor()[2:] == ({"192.168.0.1/24"}, {"192.168.0.0/24", "10.0.0.0/8"})


@pytest.mark.parametrize("ephemeral", [False, True])
@in_own_network
def test_what_outlives_this_process_is_noted_and_what_goes_with_the_device_is_not(
    tmp_path: Path, ephemeral: bool
) -> None:
    make_device()
    settings = DeviceSettings(DEVICE, Journal(DEVICE, tmp_path), ephemeral=ephemeral)
    settings.apply(ADDRESSES, ROUTES, 1380)
    kinds = [entry["kind"] for entry in entries_of(path_of(DEVICE, tmp_path))]
    assert kinds == ([] if ephemeral else ["Mtu", "Address", "Address", "Up", "Route", "Route"])
    settings.undo()
    assert entries_of(path_of(DEVICE, tmp_path)) == []
    assert (monitor()[0] == 1380) is ephemeral


@in_own_network
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceError, match="test0 is gone"):
        DeviceSettings(DEVICE).apply([], [], None)
