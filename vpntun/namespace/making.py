"""Making of a run's namespaces, by a process that stays in them.

1. unless root: make a user namespace, with this user alone
2. make a network namespace, or enter a named one, and a mount namespace
3. bring up the loopback device
4. keep the program of the run, which has the same user, from this process's capabilities
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.namespace import kernel
from vpntun.process.privileges import CAP_NET_ADMIN, CAP_SYS_ADMIN, capabilities, forbid_inspection

NAMED = Path("/run/netns")
NAMESPACES = {"user": kernel.CLONE_NEWUSER, "net": kernel.CLONE_NEWNET, "mnt": kernel.CLONE_NEWNS}
"""The kinds of namespaces under their names in /proc/PID/ns, in the order in which to enter them."""
PING_GROUPS = Path("/proc/sys/net/ipv4/ping_group_range")


class Steps:
    """The current step, which the report of a failure names."""

    current = ""


def make_namespaces(netns: str | None, steps: Steps) -> list[str]:
    """Make and enter the namespaces, and return their kinds. Raises OSError, ConfigurationError or PrivilegeError.

    `netns`: the name of the network namespace to enter, in place of a new one.
    """
    user, group = os.geteuid(), os.getegid()
    made = ["net", "mnt"]
    effective, *_ = capabilities()
    is_privileged = all(effective >> each & 1 for each in (CAP_SYS_ADMIN, CAP_NET_ADMIN))
    named = None if netns is None else _open_named(netns, is_privileged=is_privileged)
    if not is_privileged:
        steps.current = "no user namespace can be made"
        kernel.unshare(kernel.CLONE_NEWUSER)
        steps.current = "this user cannot be mapped into a user namespace"
        kernel.map_ids_to_themselves(user, group)
        made.insert(0, "user")
    if named is None:
        steps.current = "no network namespace can be made"
        kernel.unshare(kernel.CLONE_NEWNET)
    else:
        steps.current = f"the network namespace {netns} cannot be entered"
        kernel.enter(named, kernel.CLONE_NEWNET)
        os.close(named)
    steps.current = "no mount namespace can be made"
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.keep_mounts_here()
    steps.current = "the loopback device cannot be brought up"
    kernel.bring_up("lo")
    if "user" in made:
        _allow_ping(group)
    forbid_inspection()
    return made


def _open_named(netns: str, *, is_privileged: bool) -> int:
    if netns in ("", ".", "..") or "/" in netns or "\0" in netns:
        raise ConfigurationError(f"{netns!r} is not the name of a network namespace")
    if not is_privileged:
        raise PrivilegeError("only root can use a named network namespace: run as root, or leave out --netns")
    try:
        return os.open(NAMED / netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no network namespace {netns}: 'ip netns add {netns}' makes it, 'ip netns' lists those there are"
        ) from None


def _allow_ping(group: int) -> None:
    """Let ping(8) of this group work without a capability, which a new network namespace allows to nobody."""
    with suppress(OSError):
        PING_GROUPS.write_text(f"{group} {group}")
