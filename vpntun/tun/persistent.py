"""Persistent devices: made once, kept while no program holds them, removed by name.

    make      attach with the flags that a tunnel uses; set owner and group; persist; let go
    remove    attach, which fails while a program holds it; persist no more; let go, and with that it is gone

The kernel lets a user without privileges attach who is the owner and is in the group, as far as each is set, and lets
everybody attach where neither is (`tun_not_capable`, drivers/net/tun.c). So a device for nobody in particular is its
maker's.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytun

from vpntun.errors import DeviceError
from vpntun.runtime.accounts import group_name, user_name
from vpntun.tun.device import check_name, interface_exists, open_tun

TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
IFF_PERSIST = 0x0800


def make(name: str, owner: int | None = None, group: int | None = None) -> bool:
    """Make a persistent TUN device for a user, a group, a user while in a group, or for whoever runs this.

    False where it is there already, with the same owner and group: it stays as it is. Raises ConfigurationError,
    PrivilegeError or DeviceError.
    """
    check_name(name)
    if owner is None and group is None:
        owner = os.geteuid()
    if interface_exists(name):
        _check_is_the_same(name, owner, group)
        return False
    device = open_tun(name)
    try:
        if owner is not None:
            fcntl.ioctl(device.fileno(), TUNSETOWNER, _as_int(owner))
        if group is not None:
            fcntl.ioctl(device.fileno(), TUNSETGROUP, _as_int(group))
        device.persist(True)
    except OSError as error:
        raise DeviceError(f"the device {name} cannot be given away: {os.strerror(error.args[0])}") from error
    finally:
        device.close()
    return True


def remove(name: str) -> None:
    """Remove a persistent TUN device. Raises DeviceError, also where a program holds it, or PrivilegeError."""
    check_name(name)
    if not interface_exists(name):
        raise DeviceError(f"there is no device {name}")
    flags = _read(name, "tun_flags")
    if flags is None or not flags & pytun.IFF_TUN:
        raise DeviceError(f"{name} is no TUN device, and is left alone")
    held = open_tun(name)
    try:
        held.persist(False)
    finally:
        held.close()


def _check_is_the_same(name: str, owner: int | None, group: int | None) -> None:
    flags = _read(name, "tun_flags")
    if flags is None or not flags & pytun.IFF_TUN:
        raise DeviceError(f"{name} is there already, and is no TUN device: choose another name")
    if not flags & IFF_PERSIST:
        raise DeviceError(f"{name} is there already, and goes with the program that holds it: stop that program first")
    has = _read(name, "owner"), _read(name, "group")
    if has != (owner, group):
        raise DeviceError(
            f"{name} is there already, for {_whom(*has)}: use it as it is, or remove it first ('vpntun rmtun {name}')"
        )


def _whom(owner: int | None, group: int | None) -> str:
    words = [] if owner is None else [f"user {user_name(owner)}"]
    if group is not None:
        words.append(f"group {group_name(group)}")
    return " and ".join(words) or "everybody"


def _read(name: str, attribute: str) -> int | None:
    """A number of sysfs; None where it says -1 for nobody, or the device has no such attribute."""
    try:
        number = int(Path(f"/sys/class/net/{name}/{attribute}").read_text(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise DeviceError(f"{name}: {error.strerror}") from error
        return None
    return None if number < 0 else number


def _as_int(number: int) -> int:
    """The same 32 bits as a C int, which is what ioctl is given."""
    return number - (number >> 31 << 32)
