"""A TAP device gets a MAC address and joins a bridge in a real kernel, and both are taken back without a trace."""

from __future__ import annotations

import pytest

from tests.netconf.kernel import add, add_bridge, in_own_network
from vpntun.errors import DeviceError
from vpntun.netconf.changes import Change, take_back
from vpntun.netconf.ethernet_kinds import BridgePort, Mac, bridge_with
from vpntun.netconf.netlink import Netlink

DEVICE, BRIDGE = "test0", "br0"
MAC = "02:00:00:00:00:07"


@pytest.mark.parametrize("is_up", [False, True])
@in_own_network
def test_a_mac_address_is_set_and_the_former_one_comes_back(is_up: bool) -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        if is_up:
            netlink.requests.link("set", index=netlink.index_of(DEVICE), state="up")
        former = netlink.link(DEVICE).mac
        change = Mac(DEVICE, former.hex(":"), MAC)
        assert change.make(netlink)
        assert netlink.link(DEVICE).mac == bytes.fromhex(MAC.replace(":", ""))
        change.take_back(netlink)
        assert netlink.link(DEVICE).mac == former


@in_own_network
def test_a_device_joins_a_bridge_once_and_leaves_it() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        add_bridge(netlink, BRIDGE)
        change = BridgePort(DEVICE, BRIDGE)
        assert change.make(netlink)
        assert bridge_with(netlink, DEVICE) == BRIDGE
        assert not change.make(netlink)
        change.take_back(netlink)
        assert bridge_with(netlink, DEVICE) is None


@in_own_network
def test_a_device_of_another_bridge_is_left_there_and_the_bridge_is_named() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        for name in (BRIDGE, "br1"):
            add_bridge(netlink, name)
        assert BridgePort(DEVICE, "br1").make(netlink)
        with pytest.raises(DeviceError, match=f"{DEVICE} belongs to br1 already: .*ip link set {DEVICE} nomaster"):
            BridgePort(DEVICE, BRIDGE).make(netlink)
        assert take_back(BridgePort(DEVICE, BRIDGE), netlink)
        assert bridge_with(netlink, DEVICE) == "br1"


@in_own_network
def test_a_bridge_that_is_missing_or_none_is_refused_with_what_to_do() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        add(netlink, "cable0")
        with pytest.raises(DeviceError, match=r"there is no bridge br0: .*'ip link add br0 type bridge'.* br0 up'"):
            BridgePort(DEVICE, BRIDGE).make(netlink)
        with pytest.raises(DeviceError, match=r"cable0 is not a bridge: 'ip link show type bridge'"):
            BridgePort(DEVICE, "cable0").make(netlink)


@in_own_network
def test_a_bridge_or_a_device_that_has_gone_is_nothing_to_take_back() -> None:
    with Netlink() as netlink:
        add(netlink, DEVICE)
        add_bridge(netlink, BRIDGE)
        change: Change = BridgePort(DEVICE, BRIDGE)
        change.make(netlink)
        netlink.requests.link("del", index=netlink.index_of(BRIDGE))
        assert take_back(change, netlink)
        netlink.requests.link("del", index=netlink.index_of(DEVICE))
        assert take_back(change, netlink)
        assert take_back(Mac(DEVICE, MAC, MAC), netlink)
        with pytest.raises(DeviceError, match="is gone"):
            Mac(DEVICE, MAC, MAC).make(netlink)
