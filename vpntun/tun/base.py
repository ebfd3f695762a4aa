"""Device protocol: what the data path needs of a device (tun/device.py, and tun/fake.py for tests)."""

from __future__ import annotations

from typing import Protocol

from vpntun.types import DeviceKind
from vpntun.wire.ethernet.frame import LARGEST_HEADER
from vpntun.wire.message import Buffer

LARGEST_PACKET = LARGEST_HEADER + 65535
"""Bytes of the largest packet, frame or superpacket that a device hands over."""


class Device(Protocol):
    """A network device, read and written in whole IP packets or Ethernet frames, superpackets included.

    Each packet is preceded by a virtio_net_hdr of 10 bytes (wire/vnet.py), which is all zeros for an ordinary packet.
    Reading and writing never block. Both raise DeviceError once the device has been deleted.
    """

    @property
    def name(self) -> str:
        """The interface's name."""

    @property
    def kind(self) -> DeviceKind:
        """What the device carries."""

    @property
    def created(self) -> bool:
        """Whether this program made the device: closing then removes it, with its addresses and routes."""

    @property
    def mtu(self) -> int:
        """The MTU, in bytes. Raises DeviceError if no device in this network namespace has this name any more."""

    @property
    def mac(self) -> bytes:
        """The MAC address, 6 bytes; empty on a TUN device. Raises DeviceError once no device has this name."""

    @property
    def macs(self) -> tuple[bytes, ...]:
        """The MAC addresses of this machine itself: `mac`, and that of the bridge that the device is in.

        Empty on a TUN device. Raises DeviceError as `mac` does.
        """

    @property
    def takes_tcp(self) -> bool:
        """Whether TCP superpackets and unfinished checksums may be written."""

    @property
    def takes_udp(self) -> bool:
        """Whether UDP superpackets may be written."""

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up. Raises DeviceError once no device has this name."""

    def fileno(self) -> int:
        """Return the descriptor that is readable while packets wait."""

    def read_into(self, header: bytearray | memoryview, packet: memoryview) -> int:
        """Read one packet and its header; return the packet's length in bytes, 0 where none waits.

        `packet` has room for LARGEST_PACKET bytes.
        """

    def write(self, header: Buffer, packet: Buffer) -> bool:
        """Hand one packet to the network; False where it was refused (the device is down, or its queue is full)."""

    def close(self) -> None:
        """Close the device."""
