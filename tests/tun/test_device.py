"""A device as the data path uses it, in a network of the test's own; tests/netns has the rest."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.netconf.kernel import in_own_network
from tests.wire.packets import udp
from vpntun.errors import DeviceError
from vpntun.netconf.netlink import Netlink
from vpntun.tun.base import LARGEST_PACKET
from vpntun.tun.device import KernelDevice
from vpntun.tun.queries import interface_exists, is_running
from vpntun.wire.vnet import NO_OFFLOAD, VNET_HEADER_SIZE

NAME = "test0"
BROADCAST, SENDER = b"\xff" * 6, bytes.fromhex("020000000001")

pytestmark = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


@in_own_network
def test_a_device_takes_packets_while_it_is_up_and_vanishes_when_it_is_closed() -> None:
    device = KernelDevice(NAME)
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
def test_a_tap_device_takes_whole_frames_and_hands_over_those_of_the_host() -> None:
    device = KernelDevice(NAME, "tap")
    with Netlink() as netlink:
        netlink.requests.link("set", index=netlink.index_of(NAME), state="up")
    assert device.kind == "tap"
    assert device.mtu == 1500
    assert device.takes_tcp
    assert device.write(NO_OFFLOAD, BROADCAST + SENDER + b"\x08\x00" + udp(4, b"hello"))
    assert not device.write(NO_OFFLOAD, BROADCAST)
    header, packet = bytearray(VNET_HEADER_SIZE), memoryview(bytearray(LARGEST_PACKET))
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as host:
        host.bind((NAME, 0))
        host.send(frame := BROADCAST + SENDER + b"\x88\xb5" + b"from the host".ljust(46))
    read = []
    while length := device.read_into(header, packet):
        read.append(bytes(packet[:length]))
    assert frame in read
    device.close()
    assert not interface_exists(NAME)


@in_own_network
def test_a_deleted_device_is_an_error_that_says_so() -> None:
    device = KernelDevice(NAME)
    with Netlink() as netlink:
        netlink.requests.link("del", index=netlink.index_of(NAME))
    with pytest.raises(DeviceError, match="was deleted"):
        device.write(NO_OFFLOAD, udp(4, b"hello"))
