"""Look-ups of users and groups by name and by number, and the errors for unknown ones."""

from __future__ import annotations

import pytest

from vpntun.errors import ConfigurationError
from vpntun.runtime.accounts import Account, find_account, gid_of, group_name, uid_of, user_name

UNKNOWN = 2_000_000_111


def test_an_account_is_found_by_name_and_by_number() -> None:
    assert find_account("root") == find_account("0") == Account("root", 0, 0)


def test_users_and_groups_have_numbers() -> None:
    assert (uid_of("root"), gid_of("root")) == (0, 0)


def test_a_number_stands_for_itself_even_without_an_account() -> None:
    assert uid_of(str(UNKNOWN)) == gid_of(str(UNKNOWN)) == UNKNOWN


def test_users_and_groups_without_a_name_are_called_by_their_number() -> None:
    assert (user_name(0), group_name(0)) == ("root", "root")
    assert (user_name(UNKNOWN), group_name(UNKNOWN)) == (str(UNKNOWN), str(UNKNOWN))


def test_a_number_without_an_account_is_not_found() -> None:
    with pytest.raises(ConfigurationError, match=str(UNKNOWN)):
        find_account(str(UNKNOWN))


@pytest.mark.parametrize("name", ["", "no-such-user", "-1", "4294967295", "9" * 5000, "ro\0ot", "\udc80"])
def test_an_unknown_user_or_group_is_a_configuration_error(name: str) -> None:
    for find in (find_account, uid_of, gid_of):
        with pytest.raises(ConfigurationError):
            find(name)
