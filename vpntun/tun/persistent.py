"""Persistent TUN and TAP devices: created once, kept while no program has them open, removed by name.

    make      attach with the flags that a tunnel uses; ignore routers; have no link-local address, if it is a TUN
              device; set owner and group; make it persistent; close
    remove    attach, which fails while a program has it open; make it non-persistent; close, which deletes it

The kernel lets an unprivileged user attach who is the device's owner, if it has one, and in its group, if it has one
(`tun_not_capable`, drivers/net/tun.c). If it has neither, everybody may attach. So a device that is made for nobody in
particular belongs to the user who makes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from vpntun.errors import DeviceError
from vpntun.runtime.accounts import group_name, user_name
from vpntun.tun.device import settle_new_device
from vpntun.tun.opening import check_name, open_device
from vpntun.tun.queries import interface_exists, kind_of
from vpntun.types import DeviceKind

TUNSETOWNER = 0x400454CC
TUNSETGROUP = 0x400454CE
IFF_PERSIST = 0x0800


def make(name: str, owner: int | None = None, group: int | None = None, kind: DeviceKind = "tun") -> bool:
    """Make a persistent device for a user, a group, a user in that group, or (without either) for this user.

    Returns False if the device exists already with the same owner and group; then it is left alone. Raises
    ConfigurationError, PrivilegeError or DeviceError.
    """
    check_name(name)
    if owner is None and group is None:
        owner = os.geteuid()
    if interface_exists(name):
        _check_is_the_same(name, owner, group, kind)
        return False
    device = open_device(name, kind)
    try:
        settle_new_device(name, kind)
        if owner is not None:
            fcntl.ioctl(device.fileno(), TUNSETOWNER, _as_int(owner))
        if group is not None:
            fcntl.ioctl(device.fileno(), TUNSETGROUP, _as_int(group))
        device.persist(True)
    except OSError as error:
        raise DeviceError(f"the device {name} cannot be made persistent: {os.strerror(error.args[0])}") from error
    finally:
        device.close()
    return True


def remove(name: str) -> None:
    """Remove a persistent device. Raises PrivilegeError, or DeviceError, also if a program has it open."""
    check_name(name)
    if not interface_exists(name):
        raise DeviceError(f"there is no device {name}")
    kind = kind_of(name)
    if kind is None:
        raise DeviceError(f"{name} is neither a TUN nor a TAP device, and was left alone")
    device = open_device(name, kind)
    try:
        device.persist(False)
    finally:
        device.close()


def _check_is_the_same(name: str, owner: int | None, group: int | None, kind: DeviceKind) -> None:
    found = kind_of(name)
    if found != kind:
        what = "neither a TUN nor a TAP device" if found is None else f"a {found.upper()} device"
        remedy = "" if found is None else ", or give --tap" if found == "tap" else ", or leave out --tap"
        raise DeviceError(f"{name} exists already and is {what}: choose another name{remedy}")
    if not (_read(name, "tun_flags") or 0) & IFF_PERSIST:
        raise DeviceError(
            f"{name} exists already and vanishes with the program that has it open: stop that program first"
        )
    has = _read(name, "owner"), _read(name, "group")
    if has != (owner, group):
        raise DeviceError(
            f"{name} exists already, for {_whom(*has)}: use it as it is, or remove it first ('vpntun rmtun {name}')"
        )


def _whom(owner: int | None, group: int | None) -> str:
    words = [] if owner is None else [f"user {user_name(owner)}"]
    if group is not None:
        words.append(f"group {group_name(group)}")
    return " and ".join(words) or "everybody"


def _read(name: str, attribute: str) -> int | None:
    """Return a number from sysfs; None for -1, which means nobody, or if the device has no such attribute."""
    try:
        number = int(Path(f"/sys/class/net/{name}/{attribute}").read_text(), 0)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise DeviceError(f"{name}: {error.strerror}") from error
        return None
    return None if number < 0 else number


def _as_int(number: int) -> int:
    """Convert an unsigned 32-bit number to the C int with the same bits, as ioctl takes it."""
    return number - (number >> 31 << 32)
