"""Users and groups of this machine, by name or by number."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

from vpntun.errors import ConfigurationError

LARGEST_ID = 0xFFFFFFFE  # one more means "leave it as it is" to the kernel


@dataclass(frozen=True)
class Account:
    """A user that a process can become: its groups are those of its name."""

    name: str
    uid: int
    gid: int


def find_account(user: str) -> Account:
    """The account of a name or a number. Raises ConfigurationError where there is none."""
    try:
        found = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"there is no user {user!r} on this machine: make it ('useradd --system {user}'), or name another"
        ) from None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def uid_of(user: str) -> int:
    """The number of a user; a number need not have an account. Raises ConfigurationError."""
    if _is_number(user):
        return _in_range(int(user))
    return find_account(user).uid


def gid_of(group: str) -> int:
    """The number of a group; a number need not have a name. Raises ConfigurationError."""
    if _is_number(group):
        return _in_range(int(group))
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"there is no group {group!r} on this machine: make it ('groupadd --system {group}'), or name another"
        ) from None


def user_name(uid: int) -> str:
    """What to call a user: the name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """What to call a group: the name, or the number where there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))


def _in_range(number: int) -> int:
    if number > LARGEST_ID:
        raise ConfigurationError(f"{number} is no number of a user or a group: the largest is {LARGEST_ID}")
    return number
