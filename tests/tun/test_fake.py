"""The fake device: it does what the protocol says, and keeps what is written for the test."""

from __future__ import annotations

import pytest

from tests.wire.packets import tcp_superpacket
from vpntun.errors import DeviceError
from vpntun.tun.base import LARGEST_PACKET, Device
from vpntun.tun.device import TCP_OFFLOADS
from vpntun.tun.fake import FakeDevice
from vpntun.wire.vnet import NO_OFFLOAD, VNET_HEADER, VNET_HEADER_SIZE

PACKET = b"\x45" + bytes(19)


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def read(device: Device) -> tuple[bytes, bytes]:
    header, packet = memoryview(bytearray(VNET_HEADER_SIZE)), memoryview(bytearray(LARGEST_PACKET))
    size = device.read_into(header, packet)
    return bytes(header), bytes(packet[:size])


def test_packets_that_the_kernel_routes_there_are_read_in_order(device: FakeDevice) -> None:
    device.from_the_kernel(PACKET, PACKET + b"x")
    assert read(device) == (NO_OFFLOAD, PACKET)
    assert read(device) == (NO_OFFLOAD, PACKET + b"x")
    assert read(device)[1] == b""
    device.close()


def test_a_superpacket_comes_with_the_kernels_header(device: FakeDevice) -> None:
    packet = tcp_superpacket(4, bytes(3000))
    device.from_the_kernel((packet, 1448))
    header, read_back = read(device)
    flags, kind, headers, size, _, _ = VNET_HEADER.unpack(header)
    assert (flags, kind, size) == (1, 1, 1448)
    assert len(packet) - headers == 3000
    assert read_back == packet
    device.close()


def test_writes_are_kept_unless_the_device_refuses_them(device: FakeDevice) -> None:
    assert device.write(NO_OFFLOAD, PACKET)
    device.takes_packets = False
    assert not device.write(NO_OFFLOAD, PACKET)
    assert (device.packets, device.headers) == ([PACKET], [NO_OFFLOAD])
    device.close()


def test_a_deleted_device_is_an_error(device: FakeDevice) -> None:
    device.gone = True
    with pytest.raises(DeviceError, match="gone"):
        device.write(NO_OFFLOAD, PACKET)
    with pytest.raises(DeviceError, match="gone"):
        read(device)
    device.close()


def test_the_offloads_decide_what_may_be_written() -> None:
    device = FakeDevice(offloads=TCP_OFFLOADS)
    assert device.takes_tcp
    assert not device.takes_udp
    device.close()
