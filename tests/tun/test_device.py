"""A TUN device as the data path uses it, in a network of the test's own; tests/netns has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.netconf.kernel import in_own_network
from tests.wire.packets import udp
from vpntun.errors import DeviceError
from vpntun.netconf.netlink import Netlink
from vpntun.tun.device import TunDevice
from vpntun.tun.queries import interface_exists, is_running
from vpntun.wire.vnet import NO_OFFLOAD

NAME = "test0"

pytestmark = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


@in_own_network
def test_a_device_takes_packets_while_it_is_up_and_vanishes_when_it_is_closed() -> None:
    device = TunDevice(NAME)
    assert device.created
    assert not device.is_up
    assert not device.write(NO_OFFLOAD, udp(4, b"hello"))
    with Netlink() as netlink:
        netlink.requests.link("set", index=netlink.index_of(NAME), state="up")
    assert device.is_up
    assert is_running(NAME)
    assert device.write(NO_OFFLOAD, udp(4, b"hello"))
    device.close()
    assert not interface_exists(NAME)


@in_own_network
def test_a_deleted_device_is_an_error_that_says_so() -> None:
    device = TunDevice(NAME)
    with Netlink() as netlink:
        netlink.requests.link("del", index=netlink.index_of(NAME))
    with pytest.raises(DeviceError, match="was deleted"):
        device.write(NO_OFFLOAD, udp(4, b"hello"))
