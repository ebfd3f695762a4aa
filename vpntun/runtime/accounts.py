"""Look-ups of this machine's users and groups, by name or by number."""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

from vpntun.errors import ConfigurationError

LARGEST_ID = 0xFFFFFFFE  # to the kernel, one more means "leave it unchanged"


@dataclass(frozen=True)
class Account:
    """A user that a process can become; its supplementary groups are looked up by its name."""

    name: str
    uid: int
    gid: int


def find_account(user: str) -> Account:
    """Return the account with this name or number. Raises ConfigurationError if there is none."""
    try:
        found = pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"there is no user {user!r} on this machine: create it ('useradd --system {user}'), or name another"
        ) from None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def uid_of(user: str) -> int:
    """Return the number of a user. A number needs no account. Raises ConfigurationError."""
    if _is_number(user):
        return _in_range(int(user))
    return find_account(user).uid


def gid_of(group: str) -> int:
    """Return the number of a group. A number needs no name. Raises ConfigurationError."""
    if _is_number(group):
        return _in_range(int(group))
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"there is no group {group!r} on this machine: create it ('groupadd --system {group}'), or name another"
        ) from None


def user_name(uid: int) -> str:
    """Return the name of a user, or its number if it has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """Return the name of a group, or its number if it has no name."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(LARGEST_ID))


def _in_range(number: int) -> int:
    if number > LARGEST_ID:
        raise ConfigurationError(f"{number} is too large for a user or group number: the largest is {LARGEST_ID}")
    return number
