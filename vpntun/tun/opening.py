"""Opening of TUN and TAP devices by name through /dev/net/tun, with an explanation of each refusal.

1. check_name refuses names that no interface can have.
2. /dev/net/tun must be the kernel's TUN device; in containers it is often missing, or something else.
3. The device is created or attached with the flags that a tunnel uses. A device that was made with several queues
   is attached only with that flag (tun_set_iff, drivers/net/tun.c); one queue then carries everything.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytun

from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError, VpntunError
from vpntun.tun.queries import interface_exists, is_running, kind_of
from vpntun.types import DeviceKind

CLONE = "/dev/net/tun"
CLONE_NUMBER = os.makedev(10, 200)
LONGEST_NAME = 15  # bytes
KIND_FLAGS: dict[DeviceKind, int] = {"tun": int(pytun.IFF_TUN), "tap": int(pytun.IFF_TAP)}
FLAGS = int(pytun.IFF_NO_PI | pytun.IFF_VNET_HDR)
MULTI_QUEUE = int(pytun.IFF_MULTI_QUEUE)

_NOT_IN_NAMES = frozenset(b"/:%\xa0")
"""Bytes that the kernel refuses beside ASCII's blanks; 0xa0 is a blank to it, even within a UTF-8 character."""


def check_name(name: str) -> None:
    """Raise ConfigurationError if no interface can have this name."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name!r} cannot be an interface's name: it is not UTF-8") from None
    is_possible = 0 < len(encoded) <= LONGEST_NAME and not _NOT_IN_NAMES.intersection(encoded)
    if not is_possible or "\0" in name or any(each.isspace() for each in name) or name in (".", ".."):
        raise ConfigurationError(
            f"{name!r} cannot be an interface's name: use up to {LONGEST_NAME} ASCII characters, without spaces, '/', "
            "':' and '%'"
        )


def open_device(name: str, kind: DeviceKind = "tun") -> pytun.TunTapDevice:
    """Create or attach a device with the flags that a tunnel uses. Raises PrivilegeError or DeviceError."""
    check_clone(Path(CLONE))
    flags = KIND_FLAGS[kind] | FLAGS
    try:
        return pytun.TunTapDevice(name=name, flags=flags)
    except OSError as error:
        code = error.args[0]
    if code == errno.EINVAL and interface_exists(name):
        check_kind(name, kind)
        is_held = is_running(name)
        try:
            device = pytun.TunTapDevice(name=name, flags=flags | MULTI_QUEUE)
        except OSError as error:
            code = error.args[0]
        else:
            if not is_held:
                return device
            device.close()  # another program has a queue, and would get a part of the packets
            code = errno.EBUSY
    raise _refusal(name, kind, code)


def flags_of(name: str) -> int:
    """Return the flags that a device was last attached with, or 0 if no TUN or TAP device has this name."""
    try:
        flags = int(Path(f"/sys/class/net/{name}/tun_flags").read_text(), 16)
    except OSError:
        return 0
    return flags & (KIND_FLAGS["tun"] | KIND_FLAGS["tap"] | FLAGS | MULTI_QUEUE)


def check_clone(path: Path) -> None:
    """Raise DeviceError if a path is not the node of the kernel's TUN device; PrivilegeError if it is out of reach."""
    try:
        status = path.stat()
    except PermissionError:
        raise PrivilegeError(f"no access to {path}: run as root, or have root open its folders") from None
    except OSError:
        raise _missing(path) from None
    if not stat.S_ISCHR(status.st_mode):
        raise _not_tun(path, "a folder" if stat.S_ISDIR(status.st_mode) else "another kind of file")
    if status.st_rdev != CLONE_NUMBER:
        raise _not_tun(path, f"device {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")


def _missing(path: Path) -> DeviceError:
    return DeviceError(f"there is no {path}: load the module ('modprobe tun'), or give the container access to it")


def _not_tun(path: Path, kind: str) -> DeviceError:
    return DeviceError(
        f"{path} is {kind}, not the TUN device: remove it, and make it by 'mknod {path} c 10 200', or give the "
        "container access to the host's"
    )


def check_kind(name: str, kind: DeviceKind) -> None:
    """Raise DeviceError if a device that exists is of another kind than a tunnel needs."""
    found = kind_of(name)
    if found is None:
        raise DeviceError(f"{name} is neither a TUN nor a TAP device: choose another name")
    if found != kind:
        remedy = "give -a (Device = tap)" if found == "tap" else "leave out -a (Device = tap)"
        raise DeviceError(
            f"{name} is a {found.upper()} device, and this tunnel needs a {kind.upper()} device: choose another name, "
            f"or {remedy}"
        )


def _refusal(name: str, kind: DeviceKind, code: int) -> VpntunError:
    """Explain why the kernel refuses to create or attach a device."""
    if code in (errno.EPERM, errno.EACCES):
        return _denial(name, kind)
    if code in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return _missing(Path(CLONE))
    if code == errno.EBUSY:
        return DeviceError(
            f"the device {name} is busy: another program has it open; stop that program, or choose another name"
        )
    if code == errno.EINVAL and not interface_exists(name):
        return DeviceError(f"the device {name} cannot be created: the kernel reserves this name; choose another")
    return DeviceError(f"the device {name} cannot be opened: {os.strerror(code)}")


def _denial(name: str, kind: DeviceKind) -> PrivilegeError:
    """Tell a missing capability from a node that may not be opened."""
    try:
        os.close(os.open(CLONE, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        if os.access(CLONE, os.R_OK | os.W_OK, effective_ids=True):
            return PrivilegeError(
                f"{CLONE} may not be opened although its mode permits it: allow the device c 10:200 to the container "
                "(--device /dev/net/tun) or service (DeviceAllow=/dev/net/tun rw), or mount its folder without nodev"
            )
        return PrivilegeError(f"no access to {CLONE}: run as root, or have root change its mode to 0666")
    return PrivilegeError(
        f"no right to create or attach the device {name}: run as root or with CAP_NET_ADMIN, or have root create it "
        f"for you ('vpntun mktun {'--tap ' if kind == 'tap' else ''}{name} --user {os.geteuid()}')"
    )
