"""Queries about a device of any kind, by name: whether it exists, its MTU, its state."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from array import array

from vpntun.errors import DeviceError
from vpntun.types import DeviceKind

SIOCGIFFLAGS = 0x8913
SIOCGIFMTU = 0x8921
SIOCGIFHWADDR = 0x8927
SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 3
IFF_UP, IFF_RUNNING = 0x1, 0x40

_IFREQ = struct.Struct("16s24x")
_IFREQ_FLAGS = struct.Struct("16sH22x")
_IFREQ_ADDRESS = struct.Struct("16s2x6s16x")
_IFREQ_MTU = struct.Struct("16si20x")
_IFREQ_POINTER = struct.Struct("16sP16x")
_DRIVER = struct.Struct("=I32s32s32s32s64x")
"""ethtool_drvinfo of the kernel: request, driver, version, firmware and bus."""


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


def kind_of(name: str) -> DeviceKind | None:
    """Whether a device is a TUN or a TAP device; None if it is neither, or if no device has this name."""
    answer = array("B", _DRIVER.pack(ETHTOOL_GDRVINFO, b"", b"", b"", b""))
    address, _ = answer.buffer_info()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as query:
            fcntl.ioctl(query, SIOCETHTOOL, _IFREQ_POINTER.pack(os.fsencode(name), address))
    except OSError:
        return None
    _, driver, _, _, bus = _DRIVER.unpack_from(answer)
    if driver.rstrip(b"\0") != b"tun":
        return None
    return "tap" if bus.rstrip(b"\0") == b"tap" else "tun"


def mac_of(name: str) -> bytes:
    """Return the MAC address of an Ethernet device, 6 bytes. Raises DeviceError."""
    address: bytes = _IFREQ_ADDRESS.unpack(_ask(name, SIOCGIFHWADDR))[1]
    return address


def master_of(name: str) -> str:
    """Return the name of the bridge, or other device, that a device belongs to; empty if there is none or no sysfs."""
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
    except OSError:
        return ""


def is_up(name: str) -> bool:
    """Whether a device of any kind is administratively up. Raises DeviceError."""
    return bool(_flags(name) & IFF_UP)


def is_running(name: str) -> bool:
    """Whether a device of any kind is up and has a carrier; a TUN device has one while a program has it open."""
    return bool(_flags(name) & IFF_RUNNING)


def _flags(name: str) -> int:
    flags: int = _IFREQ_FLAGS.unpack(_ask(name, SIOCGIFFLAGS))[1]
    return flags


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
