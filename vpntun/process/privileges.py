"""Privileges: the process changes from root to an ordinary user, for good.

    1  The caller has done everything that needs root: read keys, opened device and sockets, set marks and buffers, set
       up addresses and routes. Files that must be written later stay open.
    2  Check that there is one thread only. The kernel keeps capabilities and no_new_privs per thread, and a thread that
       was started before would keep root's.
    3  Reduce the bounding set while there is CAP_SETPCAP, which the next steps remove.
    4  Set "keep capabilities" if one is to be kept; otherwise the change of user clears them all.
    5  Change the groups, then the group, then the user; after each step the right to do the previous one is gone.
    6  Set the capabilities: those kept are permitted and effective. None is inheritable or ambient, so hooks get none.
    7  Make the process not dumpable, so that neither a core file nor a debugger of the same user can get at the keys.
       This must follow the change of user, which resets it to the system's default.
    8  Set no_new_privs, so that no set-uid program that is run from here can regain privileges.
    9  Read everything back, and try to regain root. Any deviation ends the program.

The only capability that can be kept is CAP_NET_ADMIN, for addresses, routes and marks that change later or must be
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

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
HIGHEST_CAPABILITY = 63

PR_SET_KEEPCAPS = 8
PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def check_can_become(account: Account) -> None:
    """Raise ConfigurationError for root, PrivilegeError if this process is neither root nor that user already."""
    if account.uid == 0:
        raise ConfigurationError(
            "root cannot be the user to run as after giving up privileges: name another user, or nobody"
        )
    if os.geteuid() not in (0, account.uid):
        raise PrivilegeError(
            f"only root can become another user: start as root or as {account.name}, or leave the user out"
        )


def become(account: Account, *, keep_net_admin: bool) -> None:
    """Become this user, keep CAP_NET_ADMIN or nothing, and verify the result.

    Raises PrivilegeError. The process may then have lost only some of its privileges, and must end.
    """
    check_can_become(account)
    kept = 1 << CAP_NET_ADMIN if keep_net_admin else 0
    from_root = os.geteuid() == 0
    group, groups = account.gid, os.getgrouplist(account.name, account.gid)
    if not from_root:  # the user who started this process has chosen its groups
        group, groups = os.getgid(), os.getgroups()
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise PrivilegeError("privileges cannot be given up: a thread that would keep them is running already")
    try:
        _drop_bounding_set(kept)
        if from_root:
            _prctl(PR_SET_KEEPCAPS, keep_net_admin)
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(account.uid, account.uid, account.uid)
            _prctl(PR_SET_KEEPCAPS, False)
        _set_capabilities(kept)
        forbid_inspection()
        _prctl(PR_SET_NO_NEW_PRIVS, True)
    except OSError as error:
        raise PrivilegeError(
            f"this process cannot become {account.name}: {error.strerror}; it needs CAP_SETUID and CAP_SETGID"
            + (", and CAP_NET_ADMIN to keep" if keep_net_admin else "")
        ) from error
    _verify(account, group, groups, kept)
    notice("running as %s now, %s", account.name, "with CAP_NET_ADMIN alone" if kept else "without any capability")


def has_net_admin() -> bool:
    """Whether this process has CAP_NET_ADMIN, so that it can keep it."""
    return bool(capabilities()[1] >> CAP_NET_ADMIN & 1)


def forbid_inspection() -> None:
    """Keep other processes of the same user from this process's memory and descriptors. Raises OSError."""
    _prctl(PR_SET_DUMPABLE, False)


def capabilities() -> tuple[int, int, int]:
    """Return this thread's effective, permitted and inheritable capabilities, one bit for each."""
    words = (ctypes.c_uint32 * 6)()
    _call(_libc.capget, _header(), words)
    effective, permitted, inheritable = (words[i] | words[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def _set_capabilities(kept: int) -> None:
    low, high = kept & 0xFFFFFFFF, kept >> 32
    _call(_libc.capset, _header(), (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0))
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def _drop_bounding_set(kept: int) -> None:
    """Reduce the bounding set. Without CAP_SETPCAP it stays, and only no_new_privs guards its capabilities."""
    with suppress(PermissionError):
        for number in range(HIGHEST_CAPABILITY + 1):
            if not kept >> number & 1 and _is_in_bounding_set(number):
                _prctl(PR_CAPBSET_DROP, number)


def _is_in_bounding_set(capability: int) -> bool:
    try:
        return _prctl(PR_CAPBSET_READ, capability) == 1
    except OSError:  # this kernel has fewer capabilities
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
        wrong.append("root can be regained")
    if wrong:
        raise PrivilegeError(f"this process has not fully become {account.name}, and ends; wrong: {', '.join(wrong)}")


def _header() -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)


def _prctl(option: int, value: int = 0) -> int:
    return _call(_libc.prctl, option, *map(ctypes.c_ulong, (value, 0, 0, 0)))


def _call(function: ctypes._NamedFuncPointer, *arguments: object) -> int:
    """Call a libc function that returns -1 if it fails. Raises OSError."""
    result = int(function(*arguments))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
