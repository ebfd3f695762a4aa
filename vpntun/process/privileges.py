"""From root to an ordinary user, for good.

    1  Everything that needs root is done: keys read, device and sockets open, marks and buffers set, addresses and
       routes in place. That is the caller's; what must be written later stays open.
    2  One thread. The kernel keeps capabilities and no_new_privs for each thread by itself, and a thread that had been
       started before would keep root's.
    3  The bounding set, while there is CAP_SETPCAP to change it, which the next steps take away.
    4  "Keep capabilities", where one is kept: else the change of the user clears them all.
    5  Groups, then the group, then the user: after each the right to change what came before is gone.
    6  The capabilities: those kept, permitted and effective. None is inheritable or ambient, so that no hook has any.
    7  Not dumpable, after the change of the user, which sets it as the system likes: neither a core file nor a debugger
       of the same user gets at the keys.
    8  No new privileges: no set-uid program that is run from here gives anything back.
    9  All of it is asked for again, and root is tried to be had back. What is not as it should be ends the program.

The one capability that can be kept is CAP_NET_ADMIN, for addresses, routes and marks that change later or must be
taken back at the end.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from vpntun.errors import ConfigurationError, PrivilegeError
from vpntun.runtime.accounts import Account
from vpntun.runtime.log import notice

CAP_NET_ADMIN = 12
HIGHEST_CAPABILITY = 63

PR_SET_KEEPCAPS = 8
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def check_can_become(account: Account) -> None:
    """Raise ConfigurationError for root, PrivilegeError where this process is neither root nor that user already."""
    if account.uid == 0:
        raise ConfigurationError("root cannot be the user to give root's privileges up for: name another, or nobody")
    if os.geteuid() not in (0, account.uid):
        raise PrivilegeError(f"only root can become another user: start as root or as {account.name}, or leave it out")


def become(account: Account, *, keep_net_admin: bool) -> None:
    """Become this user, keep CAP_NET_ADMIN or nothing, and make sure of it.

    Raises PrivilegeError; then the process is neither what it was nor what it should be, and must end.
    """
    check_can_become(account)
    kept = 1 << CAP_NET_ADMIN if keep_net_admin else 0
    from_root = os.geteuid() == 0
    group, groups = account.gid, os.getgrouplist(account.name, account.gid)
    if not from_root:  # then they are what whoever started this process has chosen
        group, groups = os.getgid(), os.getgroups()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise PrivilegeError("privileges cannot be given up any more: a thread that has them is running already")
    try:
        _drop_bounding_set(kept)
        if from_root:
            _prctl(PR_SET_KEEPCAPS, keep_net_admin)
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(account.uid, account.uid, account.uid)
            _prctl(PR_SET_KEEPCAPS, False)
        _set_capabilities(kept)
        _prctl(PR_SET_DUMPABLE, False)
        _prctl(PR_SET_NO_NEW_PRIVS, True)
    except OSError as error:
        raise PrivilegeError(
            f"this process cannot become {account.name}: {error.strerror}; it needs CAP_SETUID and CAP_SETGID"
            + (", and CAP_NET_ADMIN to keep" if keep_net_admin else "")
        ) from error
    _verify(account, group, groups, kept)
    notice("running as %s now, %s", account.name, "with CAP_NET_ADMIN alone" if kept else "without any capability")


def has_net_admin() -> bool:
    """Whether there is that capability to keep."""
    return bool(capabilities()[1] >> CAP_NET_ADMIN & 1)


def capabilities() -> tuple[int, int, int]:
    """Of this thread, one bit a capability: the effective, the permitted and the inheritable ones."""
    words = (ctypes.c_uint32 * 6)()
    _call(_libc.capget, _header(), words)
    effective, permitted, inheritable = (words[i] | words[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def _set_capabilities(kept: int) -> None:
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _call(_libc.capset, _header(), (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _drop_bounding_set(kept: int) -> None:
    """As far as it may: without CAP_SETPCAP it stays, and no_new_privs alone keeps what it holds out of reach."""
    with suppress(PermissionError):
        for number in range(HIGHEST_CAPABILITY + 1):
            if not kept >> number & 1 and _is_in_bounding_set(number):
                _prctl(PR_CAPBSET_DROP, number)


def _is_in_bounding_set(capability: int) -> bool:
    try:
        return _prctl(PR_CAPBSET_READ, capability) == 1
    except OSError:  # this kernel has not that many
        return False


def _verify(account: Account, group: int, groups: list[int], kept: int) -> None:
    wrong = []
    if os.getresuid() != (account.uid,) * 3:
        wrong.append("user")
    if os.getresgid() != (group,) * 3:
        wrong.append("group")
    if set(os.getgroups()) != set(groups):
        wrong.append("groups")
    if capabilities() != (kept, kept, 0):
        wrong.append("capabilities")
    if _prctl(PR_GET_DUMPABLE) != 0:
        wrong.append("dumpable")
    if _prctl(PR_GET_NO_NEW_PRIVS) != 1:
        wrong.append("no_new_privs")
    with suppress(PermissionError):
        os.setresuid(0, 0, 0)
        wrong.append("root can be had back")
    if wrong:
        raise PrivilegeError(f"this process has not become {account.name} wholly, and ends: {', '.join(wrong)}")


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)


def _prctl(option: int, value: int = 0) -> int:
    return _call(_libc.prctl, option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    """A libc function that says -1 where it fails. Raises OSError."""
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
