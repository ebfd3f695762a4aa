"""Mounts in this process's mount namespace, by mount(2) and umount2(2)."""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND = 0x20, 0x1000
MNT_DETACH = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system of this kind, or change mounts as the flags say. Raises OSError."""
    encoded = (os.fsencode(each) or None for each in (source, target, kind))
    if _libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options) or None) != 0:
        raise _error(target)


def bind(source: str, target: str) -> None:
    """Show a file or folder in place of another one. Raises OSError."""
    mount(source, target, flags=MS_BIND)


def detach(target: str) -> None:
    """Remove the topmost mount from its place at once; it ends when nothing uses it any more. Raises OSError."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) != 0:
        raise _error(target)


def _error(target: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), target)
