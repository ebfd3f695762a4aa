"""Explanation of a refused namespace: the setting that forbids it, and the ways round.

setting or cause                                    the kernel's refusal
kernel.unprivileged_userns_clone = 0                EPERM for the user namespace; Debian, and kernels that follow it
kernel.apparmor_restrict_unprivileged_userns = 1    EPERM or EACCES, often only for the step after it; Ubuntu
user.max_user_namespaces = 0, and of other kinds    ENOSPC, also for a limit of the container around
32 namespaces inside each other                     EUSERS, or ENOSPC
a filter of system calls (seccomp)                  EPERM or ENOSYS; containers and systemd units
a missing capability of root                        EPERM; containers
a kernel without such namespaces                    EINVAL

Settings are readable by everybody where they exist. One that cannot be read explains nothing.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from vpntun.errors import PrivilegeError, VpntunError

PROC = Path("/proc")
AS_ROOT = "run it as root ('sudo vpntun run'), who needs no user namespace"
FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS)
LIMITS = ("max_user_namespaces", "max_net_namespaces", "max_mnt_namespaces")


def explain(error: OSError, step: str, *, proc: Path = PROC, is_root: bool | None = None) -> VpntunError:
    """Return the error to raise in place of `error`, with which the kernel refused a step of making a namespace.

    `step`: what has failed, as in "no network namespace can be made".
    """
    is_root = os.geteuid() == 0 if is_root is None else is_root
    return PrivilegeError(f"{step}: {_cause(error, proc, is_root)}")


def _cause(error: OSError, proc: Path, is_root: bool) -> str:
    code = error.errno
    if code in (errno.ENOSPC, errno.EUSERS):
        return _limit(proc)
    if code == errno.EINVAL:
        return (
            "this kernel has none (CONFIG_NET_NS)" if is_root else f"this kernel has none (CONFIG_USER_NS): {AS_ROOT}"
        )
    if code in FORBIDDEN:
        return _prohibition(proc, is_root)
    return os.strerror(code or 0) if is_root else f"{os.strerror(code or 0)}. If nothing else helps, {AS_ROOT}"


def _limit(proc: Path) -> str:
    for name in LIMITS:
        if _setting(proc, f"user/{name}") == "0":
            return f"user.{name} is 0. Have root raise it ('sysctl user.{name}=10000')"
    return (
        "there are too many namespaces already, or the container around this process may have none. End other "
        "containers and runs, or have root raise user.max_user_namespaces, there or on the machine"
    )


def _prohibition(proc: Path, is_root: bool) -> str:
    if is_root:
        return (
            "root lacks CAP_SYS_ADMIN or CAP_NET_ADMIN here. Give them to the container "
            "('--cap-add SYS_ADMIN --cap-add NET_ADMIN') or the unit, and allow unshare(2), setns(2) and mount(2)"
        )
    if _setting(proc, "kernel/unprivileged_userns_clone") == "0":
        return (
            "kernel.unprivileged_userns_clone is 0. Have root change it ('sysctl kernel.unprivileged_userns_clone=1'), "
            f"or {AS_ROOT}"
        )
    if _setting(proc, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor allows no capability in it (kernel.apparmor_restrict_unprivileged_userns is 1). Have root give "
            "vpntun a profile that allows 'userns', as the guide shows, or change the setting to 0 ('sysctl "
            f"kernel.apparmor_restrict_unprivileged_userns=0'), or {AS_ROOT}"
        )
    if _is_filtered(proc):
        return (
            "a filter of system calls forbids it. Run it outside the container or unit, or allow unshare(2), setns(2) "
            "and mount(2) there ('--security-opt seccomp=unconfined', or RestrictNamespaces=no)"
        )
    return (
        "a security module forbids it (AppArmor, SELinux), or this process is in a chroot. See the kernel's log, or "
        f"{AS_ROOT}"
    )


def _setting(proc: Path, name: str) -> str | None:
    """Return the value of a setting (sysctl), or None if there is no such setting, or it cannot be read."""
    try:
        return (proc / "sys" / name).read_text().strip()
    except OSError:
        return None


def _is_filtered(proc: Path) -> bool:
    """Whether this process has a filter of system calls."""
    try:
        return "\nSeccomp:\t2\n" in (proc / "self/status").read_text()
    except OSError:
        return False
