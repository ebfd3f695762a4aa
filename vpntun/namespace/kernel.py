"""Calls of the kernel for namespaces and mounts (namespaces(7)): Python has them from 3.12 on only.

Each raises OSError, as Python's own calls do.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

from vpntun.namespace.mounts import mount

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_REC, MS_SLAVE = 0x4000, 0x80000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 0x1
OWN = Path("/proc/self")

_IFREQ_FLAGS = struct.Struct("16sH22x")
_libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """Move this process, which has one thread, into new namespaces of these kinds, a sum of CLONE_NEW*."""
    _check(_libc.unshare(flags))


def enter(namespace: int, kind: int) -> None:
    """Move this process into a namespace, given by a descriptor and its kind, CLONE_NEW*."""
    _check(_libc.setns(namespace, kind))


def map_ids_to_themselves(user: int, group: int) -> None:
    """Give a new user namespace this user and this group alone, under their own numbers (user_namespaces(7))."""
    (OWN / "setgroups").write_text("deny")
    (OWN / "uid_map").write_text(f"{user} {user} 1")
    (OWN / "gid_map").write_text(f"{group} {group} 1")


def keep_mounts_here() -> None:
    """Keep mounts of this mount namespace from the one that it was copied from. Those made there still show here."""
    mount("", "/", flags=MS_REC | MS_SLAVE)


def bring_up(device: str) -> None:
    """Bring up a device of this network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asked:
        name = os.fsencode(device)
        flags = _IFREQ_FLAGS.unpack(fcntl.ioctl(asked, SIOCGIFFLAGS, _IFREQ_FLAGS.pack(name, 0)))[1]
        fcntl.ioctl(asked, SIOCSIFFLAGS, _IFREQ_FLAGS.pack(name, flags | IFF_UP))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
