"""TUN device: opened through /dev/net/tun, read and written in whole IP packets and superpackets.

A virtio_net_hdr (wire/vnet.py) precedes each packet. With offloads, the kernel hands over in one piece what TCP and UDP
sockets wrote, up to 64 kB with an unfinished checksum, and accepts such superpackets in return. A device that refuses
some or all offloads still works, packet by packet.

A device that this program creates vanishes when its descriptor is closed, together with its addresses and routes. A
device that existed before (`vpntun mktun`) is attached, and stays when the program ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytun

from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.runtime.log import log
from vpntun.tun.router_settings import ignore_routers
from vpntun.wire.message import Buffer
from vpntun.wire.vnet import TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, TUN_F_USO4, TUN_F_USO6

CLONE = "/dev/net/tun"
IFF_UP = 1
VALID_NAME = re.compile(r"[^\s/:%]{1,15}")
SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
TUNSETOFFLOAD = 0x400454D0
TCP_OFFLOADS = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6
UDP_OFFLOADS = TUN_F_USO4 | TUN_F_USO6
REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

_IFREQ = struct.Struct("16s24x")
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_MTU = struct.Struct("16si20x")


class TunDevice:
    """An open device. `created`: this program created it, so it vanishes when it is closed.

    Raises ConfigurationError for an impossible name, PrivilegeError where CAP_NET_ADMIN or access to /dev/net/tun is
    missing, and DeviceError for all other failures.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self.created = not interface_exists(name)
        self._former_flags = 0 if self.created else _flags_of(name)
        self._tun = open_tun(name)
        if self.created:
            ignore_routers(name)
        self._descriptor: int = self._tun.fileno()
        os.set_inheritable(self._descriptor, False)
        os.set_blocking(self._descriptor, False)
        self.offloads = self._ask_for_offloads()

    @property
    def mtu(self) -> int:
        """The device's MTU, in bytes. Raises DeviceError if no device has this name any more."""
        return mtu_of(self.name)

    @property
    def takes_tcp(self) -> bool:
        """Whether the device accepts TCP superpackets."""
        return self.offloads & TCP_OFFLOADS == TCP_OFFLOADS

    @property
    def takes_udp(self) -> bool:
        """Whether the device accepts UDP superpackets."""
        return self.offloads & UDP_OFFLOADS == UDP_OFFLOADS

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up. Raises DeviceError if no device has this name any more."""
        return is_up(self.name)

    def fileno(self) -> int:
        """Return the descriptor, for the loop."""
        return self._descriptor

    def read_into(self, header: memoryview, packet: memoryview) -> int:
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

    def close(self) -> None:
        """Close the device. One that stays gets its former flags back, and has no offloads."""
        if not self.created:
            self._set_offloads(0)
        self._tun.close()
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

    def _gone(self, error: OSError) -> DeviceError:
        return DeviceError(f"the device {self.name} is gone ({error.strerror}): it was deleted; start again")


def check_name(name: str) -> None:
    """Raise ConfigurationError if no interface can have this name."""
    if not VALID_NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigurationError(
            f"{name!r} cannot be an interface's name: use up to 15 characters, without spaces, '/', ':' and '%'"
        )


def interface_exists(name: str) -> bool:
    """Whether a device of any kind has this name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def mtu_of(name: str) -> int:
    """Return the MTU of a device of any kind, in bytes. Raises DeviceError."""
    mtu: int = _IFREQ_MTU.unpack(_ask(name, SIOCGIFMTU))[1]
    return mtu


def is_up(name: str) -> bool:
    """Whether a device of any kind is administratively up. Raises DeviceError."""
    return bool(_IFREQ_FLAGS.unpack(_ask(name, SIOCGIFFLAGS))[1] & IFF_UP)


def _ask(name: str, request: int) -> bytes:
    """Query a device of this network namespace (netdevice(7)); /sys may show the devices of another."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as query:
            return fcntl.ioctl(query, request, _IFREQ.pack(os.fsencode(name)))
    except OSError as error:
        raise DeviceError(
            f"the device {name} cannot be queried ({error.strerror}): if it was renamed, give it its name back "
            f"('ip link set OTHER name {name}'); if it was deleted, start again"
        ) from error


def _flags_of(name: str) -> int:
    """Return the flags that a TUN device was last attached with, or 0 if there is no TUN device of this name."""
    try:
        flags = int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16)
    except OSError:
        return 0
    return flags & int(pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)


def open_tun(name: str) -> pytun.TunTapDevice:
    """Create or attach a TUN device with the flags that a tunnel uses. Raises PrivilegeError or DeviceError."""
    try:
        return pytun.TunTapDevice(name=name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)
    except OSError as error:
        code = error.args[0]
        if code in (errno.EPERM, errno.EACCES):
            if os.access(CLONE, os.R_OK | os.W_OK):
                raise PrivilegeError(
                    f"no right to create or attach the device {name}: run as root or with CAP_NET_ADMIN, or have root "
                    f"create it for you ('vpntun mktun {name} --user {os.geteuid()}')"
                ) from error
            raise PrivilegeError(f"no access to {CLONE}: run as root, or have root change its mode to 0666") from error
        if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise DeviceError(
                f"there is no {CLONE}: load the module ('modprobe tun'), or give the container access to it"
            ) from error
        if code == errno.EBUSY:
            raise DeviceError(
                f"the device {name} is busy: another program has it open; stop that program, or choose another name"
            ) from error
        if code == errno.EINVAL:
            raise DeviceError(f"{name} exists and is not a TUN device: choose another name with -i") from error
        raise DeviceError(f"the device {name} cannot be opened: {os.strerror(code)}") from error
