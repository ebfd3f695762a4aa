"""The TUN device: made or attached through the clone device, read and written in whole IP packets and superpackets.

Each packet stands behind a virtio_net_hdr (wire/vnet.py). With offloads the kernel hands over what TCP and UDP sockets
wrote in one piece, up to 64 kB, its checksum unfinished, and takes such superpackets too. A device that refuses some
or all of the offloads is served all the same, packet by packet.

A device that was not there vanishes with the descriptor, its addresses and routes with it. One that was there
(`vpntun mktun`) is attached, and stays when this program ends.
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
NOT_TAKEN = frozenset({errno.EIO, errno.EINVAL, errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM})

_IFREQ = struct.Struct("16s24x")
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_MTU = struct.Struct("16si20x")


class TunDevice:
    """An open device. `created`: it was not there before, and goes when it is closed.

    Raises ConfigurationError for an impossible name, PrivilegeError where CAP_NET_ADMIN or access to the clone device
    is missing, DeviceError for the rest.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self.created = not interface_exists(name)
        self._found = 0 if self.created else _flags_of(name)
        self._tun = open_tun(name)
        self._descriptor: int = self._tun.fileno()
        os.set_inheritable(self._descriptor, False)
        os.set_blocking(self._descriptor, False)
        self.offloads = self._ask_for_offloads()

    @property
    def mtu(self) -> int:
        """The device's MTU, in bytes. Raises DeviceError when no device has its name any more."""
        return mtu_of(self.name)

    @property
    def takes_tcp(self) -> bool:
        """Whether TCP superpackets may be written."""
        return self.offloads & TCP_OFFLOADS == TCP_OFFLOADS

    @property
    def takes_udp(self) -> bool:
        """Whether UDP superpackets may be written."""
        return self.offloads & UDP_OFFLOADS == UDP_OFFLOADS

    @property
    def is_up(self) -> bool:
        """Whether the device is administratively up. Raises DeviceError when no device has its name any more."""
        return is_up(self.name)

    def fileno(self) -> int:
        """The descriptor, for the loop."""
        return self._descriptor

    def read_into(self, header: memoryview, packet: memoryview) -> int:
        """Read one packet and its virtio_net_hdr (10 bytes); the packet's length in bytes, 0 when none waits.

        `packet` has room for LARGEST_PACKET. Raises DeviceError when the device has gone.
        """
        try:
            return os.readv(self._descriptor, (header, packet)) - len(header)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from error

    def write(self, header: Buffer, packet: Buffer) -> bool:
        """Hand one packet to the kernel; False if it would not take it (the device is down, or its queue full).

        Raises DeviceError when the device has gone.
        """
        try:
            os.writev(self._descriptor, (header, packet))
        except OSError as error:
            if error.errno in NOT_TAKEN:
                return False
            raise self._gone(error) from error
        return True

    def close(self) -> None:
        """Let the device go; one that stays is left as it was found, without offloads and with its own header."""
        if not self.created:
            self._set_offloads(0)
        self._tun.close()
        if self._found and interface_exists(self.name):
            with suppress(OSError):
                pytun.TunTapDevice(name=self.name, flags=self._found).close()

    def _ask_for_offloads(self) -> int:
        for wanted in (TCP_OFFLOADS | UDP_OFFLOADS, TCP_OFFLOADS):
            if self._set_offloads(wanted):
                if wanted == TCP_OFFLOADS:
                    log.info("the device takes no superpackets of UDP (a kernel before 6.2)")
                return wanted
        log.info("the device takes no superpackets: packets go one by one, which is slower")
        return 0

    def _set_offloads(self, wanted: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, TUNSETOFFLOAD, wanted)
        except OSError:
            return False
        return True

    def _gone(self, error: OSError) -> DeviceError:
        return DeviceError(f"the device {self.name} has gone ({error.strerror}): somebody deleted it; start again")


def check_name(name: str) -> None:
    """Raise ConfigurationError where no interface can have that name."""
    if not VALID_NAME.fullmatch(name) or name in (".", ".."):
        raise ConfigurationError(f"{name!r} cannot be an interface's name: up to 15 characters, no space, / : or %")


def interface_exists(name: str) -> bool:
    """Whether a device of any kind has that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def mtu_of(name: str) -> int:
    """The MTU of a device of any kind, in bytes. Raises DeviceError."""
    mtu: int = _IFREQ_MTU.unpack(_ask(name, SIOCGIFMTU))[1]
    return mtu


def is_up(name: str) -> bool:
    """Whether a device of any kind is administratively up. Raises DeviceError."""
    return bool(_IFREQ_FLAGS.unpack(_ask(name, SIOCGIFFLAGS))[1] & IFF_UP)


def _ask(name: str, request: int) -> bytes:
    """What the kernel says of a device in this network namespace, whichever one /sys shows (netdevice(7))."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
            return fcntl.ioctl(asking, request, _IFREQ.pack(os.fsencode(name)))
    except OSError as error:
        raise DeviceError(
            f"the device {name} cannot be asked ({error.strerror}): if somebody renamed it, give it its name again "
            f"('ip link set OTHER name {name}'), else start again"
        ) from error


def _flags_of(name: str) -> int:
    """How a TUN device was attached last, as far as that is seen by who attaches it next; 0 for what is none."""
    try:
        flags = int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16)
    except OSError:
        return 0
    return flags & int(pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)


def ipv6_is_on(name: str) -> bool:
    """Whether the kernel has IPv6, and has it switched on for that device."""
    try:
        return Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def open_tun(name: str) -> pytun.TunTapDevice:
    """Make or attach a TUN device, with the flags that a tunnel uses. Raises PrivilegeError or DeviceError."""
    try:
        return pytun.TunTapDevice(name=name, flags=pytun.IFF_TUN | pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)
    except OSError as error:
        code = error.args[0]
        if code in (errno.EPERM, errno.EACCES):
            if os.access(CLONE, os.R_OK | os.W_OK):
                raise PrivilegeError(
                    f"no right to make or attach the device {name}: run as root or with CAP_NET_ADMIN, or have root "
                    f"make it for you ('vpntun mktun {name} --user {os.geteuid()}')"
                ) from error
            raise PrivilegeError(f"no access to {CLONE}: run as root, or have its mode changed to 0666") from error
        if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            raise DeviceError(
                f"there is no {CLONE}: load the module ('modprobe tun'), or allow it in the container"
            ) from error
        if code == errno.EBUSY:
            raise DeviceError(
                f"the device {name} is busy: another program has it open; stop that one, or choose another name"
            ) from error
        if code == errno.EINVAL:
            raise DeviceError(f"{name} is there and is no TUN device: choose another name with -i") from error
        raise DeviceError(f"the device {name} cannot be opened: {os.strerror(code)}") from error
