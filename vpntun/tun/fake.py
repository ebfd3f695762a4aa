"""A device for tests, whose other side is the test: needs neither root nor /dev/net/tun."""

from __future__ import annotations

import os
import socket

from vpntun.errors import DeviceError
from vpntun.tun.device import TCP_OFFLOADS, UDP_OFFLOADS
from vpntun.types import DeviceKind
from vpntun.wire.checksum import UDP, UDP_CHECKSUM
from vpntun.wire.ethernet.frame import ip_at
from vpntun.wire.message import Buffer
from vpntun.wire.transport_header import TCP_CHECKSUM, shape_of
from vpntun.wire.vnet import (
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP,
    NEEDS_CSUM,
    NO_OFFLOAD,
    VNET_HEADER,
    VNET_HEADER_SIZE,
)

SO_SNDBUFFORCE = 32
BUFFER_SIZE = 1 << 22


class FakeDevice:
    """A device that keeps what is written to it, and hands over what the test puts in.

    packets          packets and superpackets that were written, oldest first
    headers          the virtio_net_hdr of each
    takes_packets    whether writes are accepted
    gone             whether somebody has deleted it
    elsewhere        whether somebody has moved it to another network namespace, or renamed it
    """

    def __init__(self, mtu: int = 1420, offloads: int = TCP_OFFLOADS | UDP_OFFLOADS, kind: DeviceKind = "tun") -> None:
        self.name = "fake0"
        self.kind = kind
        self.mac = b"\x02\0\0\0\0\xfa" if kind == "tap" else b""
        self.macs: tuple[bytes, ...] = (self.mac,) if kind == "tap" else ()
        self.created = True
        self.is_up = True
        self._mtu = mtu
        self.takes_tcp = offloads & TCP_OFFLOADS == TCP_OFFLOADS
        self.takes_udp = offloads & UDP_OFFLOADS == UDP_OFFLOADS
        self.packets: list[bytes] = []
        self.headers: list[bytes] = []
        self.takes_packets = True
        self.gone = False
        self.elsewhere = False
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._near, self._far):
            option = SO_SNDBUFFORCE if os.geteuid() == 0 else socket.SO_SNDBUF
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER_SIZE)
            end.setblocking(False)

    @property
    def mtu(self) -> int:
        """The MTU, as Device.mtu."""
        if self.elsewhere:
            raise DeviceError(f"the device {self.name} cannot be queried")
        return self._mtu

    @mtu.setter
    def mtu(self, mtu: int) -> None:
        self._mtu = mtu

    def fileno(self) -> int:
        """Return the descriptor that is readable while packets wait."""
        return self._near.fileno()

    def read_into(self, header: bytearray | memoryview, packet: memoryview) -> int:
        """Read one packet and its header, as Device.read_into."""
        if self.gone:
            raise DeviceError(f"the device {self.name} has gone")
        try:
            return self._near.recvmsg_into([header, packet])[0] - len(header)
        except BlockingIOError:
            return 0

    def write(self, header: Buffer, packet: Buffer) -> bool:
        """Keep one packet, as Device.write."""
        if self.gone:
            raise DeviceError(f"the device {self.name} has gone")
        assert len(header) == VNET_HEADER_SIZE
        if self.takes_packets:
            self.packets.append(bytes(packet))
            self.headers.append(bytes(header))
        return self.takes_packets

    def clear(self) -> None:
        """Forget what was written."""
        self.packets.clear()
        self.headers.clear()

    def close(self) -> None:
        """Close both sides."""
        self._near.close()
        self._far.close()

    def from_the_kernel(self, *packets: bytes | tuple[bytes, int]) -> None:
        """Have the kernel route these into the device: packets, or superpackets with the segment size of each."""
        for each in packets:
            packet, size = each if isinstance(each, tuple) else (each, 0)
            lead = ip_at(packet) if self.kind == "tap" else 0
            header = kernels_header(packet, size, lead) if isinstance(each, tuple) else NO_OFFLOAD
            self._far.sendmsg([header, packet])


def kernels_header(packet: bytes, size: int, lead: int = 0) -> bytes:
    """Return the virtio_net_hdr that the kernel puts before a TCP or UDP packet whose checksum is unfinished.

    `size`: bytes of payload in each segment of a superpacket; 0 for an ordinary packet. `lead`: bytes before its IP
    header.
    """
    protocol, start, end = shape_of(packet[lead:], len(packet) - lead)
    start, end = start + lead, end + lead
    kind = GSO_NONE
    if size and len(packet) - end > size:
        kind = GSO_UDP if protocol == UDP else GSO_TCPV4 if packet[lead] < 0x50 else GSO_TCPV6
    offset = UDP_CHECKSUM if protocol == UDP else TCP_CHECKSUM
    return VNET_HEADER.pack(NEEDS_CSUM, kind, end if kind else 0, size if kind else 0, start, offset)
