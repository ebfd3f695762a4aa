"""Network namespaces joined by veth pairs, for scripts/demo, scripts/netns, the benchmark and the tests' lab.

A namespace is a file below /run/netns with its name, as for ip-netns(8). This needs root and ip(8), but only the
standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

NETNS = Path("/run/netns")
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(Exception):
    """A failed step; the message names it and quotes ip(8) or the kernel."""


def ip(*arguments: str) -> str:
    """Run ip(8) and return its output."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NamespaceError(f"ip {' '.join(arguments)}: {' / '.join(done.stderr.strip().splitlines()[-3:])}")
    return done.stdout


def add(name: str) -> None:
    """Make a namespace whose loopback device is up."""
    ip("netns", "add", name)
    ip("-n", name, "link", "set", "lo", "up")


def cable(one: str, its: str, other: str, others: str) -> None:
    """Join two namespaces by a veth pair, which is down at first. `its` and `others` are the names of its devices."""
    ip("link", "add", its, "netns", one, "type", "veth", "peer", "name", others, "netns", other)


def up(name: str, device: str, *addresses: str) -> None:
    """Give a device these addresses, each with its prefix length, and set it up."""
    for address in addresses:
        # Without duplicate address detection, an IPv6 address can be used at once.
        ip("-n", name, "address", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
    ip("-n", name, "link", "set", device, "up")


def entering(name: str) -> list[str]:
    """The words to put before a command to run it in this namespace."""
    return ["ip", "netns", "exec", name]


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Enter a namespace: sockets and devices that this thread opens in the body belong to it."""
    with open("/proc/thread-self/ns/net") as outside, (NETNS / name).open() as there:
        _call("setns", there.fileno(), _CLONE_NEWNET)
        try:
            yield
        finally:
            _call("setns", outside.fileno(), _CLONE_NEWNET)


def remove(name: str, grace: float = 0) -> None:
    """Remove a namespace, if it exists, and end the processes in it.

    With a `grace` in seconds they first get SIGTERM and this time to end, then SIGKILL. An ended child of this process
    is still listed until this process waits for it, which delays the removal by a second, but does not prevent it.
    """
    if not (NETNS / name).exists():
        return
    if grace:
        _signal(name, signal.SIGTERM)
        until(lambda: not _pids(name), grace)
    until(lambda: not _signal(name, signal.SIGKILL), 1)
    ip("netns", "del", name)


def _pids(name: str) -> list[int]:
    return [int(pid) for pid in ip("netns", "pids", name).split()]


def _signal(name: str, number: signal.Signals) -> list[int]:
    """Send a signal to the processes in a namespace, and return their ids."""
    pids = _pids(name)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


def hide(*folders: str) -> None:
    """Give this process private mounts in which these folders are empty.

    Namespaces and files that it makes there are invisible outside, and disappear with the last process that uses the
    mounts.
    """
    _call("unshare", _CLONE_NEWNS)
    _call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for folder in folders:
        _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"mode=0755")


def until(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Poll until the condition holds; return False if it does not within this many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(interval)
    return True


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise NamespaceError(f"{name}: {os.strerror(ctypes.get_errno())}")
