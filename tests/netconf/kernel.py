"""A network of one's own for a test: what it sets up there is the kernel's, and nobody else sees it."""

from __future__ import annotations

import ctypes
import functools
import os
import traceback
from collections.abc import Callable
from typing import ParamSpec

import pytest

from vpntun.netconf.change_kinds import IFA_F_NODAD
from vpntun.netconf.netlink import Netlink

CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000

Given = ParamSpec("Given")
_libc = ctypes.CDLL(None, use_errno=True)


def in_own_network(test: Callable[Given, None]) -> Callable[Given, None]:
    """Run the test in a child process that has a network of its own, with a /sys that shows it; root alone can."""

    @functools.wraps(test)
    def run(*arguments: Given.args, **named: Given.kwargs) -> None:
        if os.geteuid() != 0:
            pytest.skip("not root: a network of its own needs it")
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.close(reader)
            said = "" if (refused := _enter_own_network()) is None else f"skip {refused}"
            try:
                if not said:
                    test(*arguments, **named)
            except BaseException:
                said = traceback.format_exc()
            with os.fdopen(writer, "w") as pipe:
                pipe.write(said)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            said = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if said.startswith("skip "):
            pytest.skip(said[5:])
        if said or status:
            pytest.fail(said or f"status {status}", pytrace=False)

    return run


def add(netlink: Netlink, name: str) -> None:
    """A device, down; it is one end of a cable whose other end is up."""
    netlink.requests.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}-end"})
    netlink.requests.link("set", index=netlink.index_of(f"{name}-end"), state="up")


def add_bridge(netlink: Netlink, name: str) -> None:
    """A bridge without ports, up."""
    netlink.requests.link("add", ifname=name, kind="bridge")
    netlink.requests.link("set", index=netlink.index_of(name), state="up")


def add_up(netlink: Netlink, name: str, *addresses: str) -> None:
    """A device that is up, with these addresses."""
    add(netlink, name)
    index = netlink.index_of(name)
    for each in addresses:
        address, _, length = each.partition("/")
        flags = {"flags": IFA_F_NODAD} if ":" in address else {}
        netlink.requests.addr("add", index=index, address=address, prefixlen=int(length), **flags)
    netlink.requests.link("set", index=index, state="up")


def _enter_own_network() -> str | None:
    """Leave this process's network and mounts for new ones; the reason where that is not possible."""
    steps: list[Callable[[], int]] = [
        lambda: int(_libc.unshare(CLONE_NEWNET | CLONE_NEWNS)),
        lambda: int(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)),
        lambda: int(_libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None)),
    ]
    for step in steps:
        if step() != 0:
            return f"no network of its own can be made: {os.strerror(ctypes.get_errno())}"
    return None
