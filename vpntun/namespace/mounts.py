"""Mounts in this process's mount namespace, by mount(2), open_tree(2) and move_mount(2)."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND = 0x20, 0x1000
AT_FDCWD = -100

OPEN_TREE, MOVE_MOUNT = 428, 429
"""Numbers of the system calls, which are the same on all architectures; the C library may have no name for them."""
OPEN_TREE_CLONE, AT_RECURSIVE, MOVE_MOUNT_F_EMPTY_PATH = 0x1, 0x8000, 0x4

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system of this kind, or change mounts as the flags say. Raises OSError."""
    encoded = (os.fsencode(each) or None for each in (source, target, kind))
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options) or None) != 0:
        raise _error(target)


def bind(source: str, target: str) -> None:
    """Show a file or folder in place of another one. Raises OSError."""
    mount(source, target, flags=MS_BIND)


def copy_of(folder: str) -> int:
    """Copy what is mounted at a folder and below it, and return a descriptor of the copy. Raises OSError."""
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | os.O_CLOEXEC
    descriptor: int = _libc.syscall(OPEN_TREE, AT_FDCWD, os.fsencode(folder), flags)
    if descriptor < 0:
        raise _error(folder)
    return descriptor


def attach(copy: int, target: str) -> None:
    """Mount a copy at a folder. Raises OSError."""
    if _libc.syscall(MOVE_MOUNT, copy, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH) != 0:
        raise _error(target)


def _error(target: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), target)
