"""TUN or TAP device of the kernel: opened through /dev/net/tun, read and written in whole packets or frames.

A virtio_net_hdr (wire/vnet.py) precedes each packet. With offloads, the kernel hands over in one piece what TCP and UDP
sockets wrote, up to 64 kB with an unfinished checksum, and accepts such superpackets in return. A device that refuses
some or all offloads still works, packet by packet.

`DeviceDescriptor` reads and writes a device by its descriptor, wherever the device is; `KernelDevice` opens one in this
network namespace.

A device that this program creates vanishes when its descriptor is closed, together with its addresses and routes. A
device that existed before (`vpntun mktun`) is attached, and stays when the program ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress

import pytun

from vpntun.errors import DeviceError
from vpntun.runtime.log import log
from vpntun.tun.link_local import make_no_link_local
from vpntun.tun.opening import check_name, flags_of, open_device
from vpntun.tun.queries import interface_exists, is_up, mac_of, master_of, mtu_of
from vpntun.tun.router_settings import ignore_routers
from vpntun.types import DeviceKind
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6

TUNSETOFFLOAD = 0x400454D0
TCP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
UDP_OFFLOADS = TUN_F_USO4 | TUN_F_USO6
REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})


class DeviceDescriptor:
    """An open device, as far as its descriptor leads. `offloads`: those that it has accepted, a sum of TUN_F_*."""

    def __init__(self, name: str, kind: DeviceKind, descriptor: int) -> None:
        self.name = name
        self.kind: DeviceKind = kind
        self.offloads = 0
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)
        os.set_blocking(descriptor, False)

    @property
    def takes_tcp(self) -> bool:
        """Whether the device accepts TCP superpackets."""
        return self.offloads & TCP_OFFLOADS == TCP_OFFLOADS

    @property
    def takes_udp(self) -> bool:
        """Whether the device accepts UDP superpackets."""
        return self.offloads & UDP_OFFLOADS == UDP_OFFLOADS

    def fileno(self) -> int:
        """Return the descriptor, for the loop."""
        return self._descriptor

    def read_into(self, header: bytearray | memoryview, packet: memoryview) -> int:
        """Read one packet and its virtio_net_hdr (10 bytes). Returns the packet's length in bytes, 0 if there is none.

        `packet` has room for LARGEST_PACKET bytes. Raises DeviceError if the device is gone.
        """
        try:
            return os.readv(self._descriptor, (header, packet)) - len(header)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from error

    def write(self, header: Buffer, packet: Buffer) -> bool:
        """Hand one packet to the kernel. Returns False if it was refused: the device is down, or its queue is full.

        Raises DeviceError if the device is gone.
        """
        try:
            os.writev(self._descriptor, (header, packet))
        except OSError as error:
            if error.errno in REFUSED:
                return False
            raise self._gone(error) from error
        return True

    def _gone(self, error: OSError) -> DeviceError:
        return DeviceError(f"the device {self.name} is gone ({error.strerror}): it was deleted; start again")


class KernelDevice(DeviceDescriptor):
    """An open device. `created`: this program created it, so it vanishes when it is closed.

    Raises ConfigurationError for an impossible name, PrivilegeError where CAP_NET_ADMIN or access to /dev/net/tun is
    missing, and DeviceError for all other failures.
    """

    def __init__(self, name: str, kind: DeviceKind = "tun") -> None:
        check_name(name)
        self.created = not interface_exists(name)
        self._former_flags = 0 if self.created else flags_of(name)
        self._opened = open_device(name, kind)
        if self.created:
            settle_new_device(name, kind)
        super().__init__(name, kind, self._opened.fileno())
        self.offloads = self._ask_for_offloads()

    @property
    def mtu(self) -> int:
        """The device's MTU, in bytes. Raises DeviceError if no device has this name any more."""
        return mtu_of(self.name)

    @property
    def mac(self) -> bytes:
        """The MAC address of a TAP device, 6 bytes; empty on a TUN. Raises DeviceError once no device has this name."""
        return mac_of(self.name) if self.kind == "tap" else b""

    @property
    def macs(self) -> tuple[bytes, ...]:
        """The MAC addresses of a TAP device and of the bridge that it is in. Raises DeviceError as `mac` does."""
        if self.kind != "tap":
            return ()
        addresses = [self.mac]
        if master := master_of(self.name):
            with suppress(DeviceError):  # the bridge may have gone by now
                addresses.append(mac_of(master))
        return tuple(addresses)

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up. Raises DeviceError if no device has this name any more."""
        return is_up(self.name)

    def close(self) -> None:
        """Close the device. One that stays gets its former flags back, and has no offloads."""
        if not self.created:
            self._set_offloads(0)
        self._opened.close()
        if self._former_flags and interface_exists(self.name):
            with suppress(OSError):
                pytun.TunTapDevice(name=self.name, flags=self._former_flags).close()

    def _ask_for_offloads(self) -> int:
        for wanted in (TCP_OFFLOADS | UDP_OFFLOADS, TCP_OFFLOADS):
            if self._set_offloads(wanted):
                if wanted == TCP_OFFLOADS:
                    log.info("the device refuses UDP superpackets: the kernel is older than 6.2")
                return wanted
        log.info("the device refuses superpackets: packets pass one by one, which is slower")
        return 0

    def _set_offloads(self, wanted: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, TUNSETOFFLOAD, wanted)
        except OSError:
            return False
        return True


def settle_new_device(name: str, kind: DeviceKind) -> None:
    """Have a new device, which is not up yet, ignore routers, and a TUN device have no link-local address."""
    ignore_routers(name)
    if kind == "tun":
        make_no_link_local(name)
