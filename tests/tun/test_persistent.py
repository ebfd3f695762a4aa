"""Persistent devices, in a network of the test's own: for whom they are made, and what is never touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machine import NOBODY, needs_root, ordinary_user
from tests.netconf.kernel import add, in_own_network
from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.netconf.netlink import Netlink
from vpntun.tun.opening import open_device
from vpntun.tun.persistent import IFF_PERSIST, make, remove
from vpntun.tun.queries import interface_exists, kind_of
from vpntun.types import DeviceKind

NAME = "test0"
OTHERS = 2**32 - 2
"""More than a C int holds."""

pytestmark = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


def number(attribute: str) -> int:
    """What the kernel says of the device."""
    return int(Path(f"/sys/class/net/{NAME}/{attribute}").read_text(), 0)


@pytest.mark.parametrize(
    ("owner", "group", "kernels"),
    [
        (NOBODY, None, (NOBODY, -1)),
        (None, NOBODY, (-1, NOBODY)),
        (NOBODY, 0, (NOBODY, 0)),
        (None, None, (0, -1)),
    ],
)
@in_own_network
def test_a_device_is_the_users_and_the_groups_that_were_named_or_its_makers(
    owner: int | None, group: int | None, kernels: tuple[int, int]
) -> None:
    assert make(NAME, owner, group) is True
    assert (number("owner"), number("group")) == kernels
    assert number("tun_flags") & IFF_PERSIST


@in_own_network
def test_a_device_made_twice_is_the_same_and_for_somebody_else_it_is_refused() -> None:
    assert make(NAME, NOBODY) is True
    assert make(NAME, NOBODY) is False
    for owner, group in ((0, None), (None, None), (NOBODY, NOBODY), (None, NOBODY)):
        with pytest.raises(DeviceError, match=f"{NAME} exists already, for user .*vpntun rmtun {NAME}"):
            make(NAME, owner, group)
    assert (number("owner"), number("group")) == (NOBODY, -1)


@in_own_network
def test_a_device_of_everybody_is_not_taken_for_its_makers() -> None:
    held = open_device(NAME)
    held.persist(True)
    held.close()
    with pytest.raises(DeviceError, match="for everybody"):
        make(NAME)


@in_own_network
def test_a_removed_device_is_gone_and_can_be_made_again() -> None:
    make(NAME, NOBODY)
    remove(NAME)
    assert not interface_exists(NAME)
    assert make(NAME) is True


@in_own_network
def test_a_device_that_a_program_holds_is_neither_taken_over_nor_removed() -> None:
    make(NAME)
    held = open_device(NAME)
    with pytest.raises(DeviceError, match="busy"):
        remove(NAME)
    assert number("tun_flags") & IFF_PERSIST
    held.close()
    remove(NAME)


@in_own_network
def test_a_device_that_goes_with_its_program_is_not_there_to_be_made() -> None:
    held = open_device(NAME)
    with pytest.raises(DeviceError, match="vanishes with the program that has it open"):
        make(NAME)
    held.close()


@pytest.mark.parametrize(("kind", "other"), [("tun", "tap"), ("tap", "tun")])
@in_own_network
def test_a_device_of_either_kind_is_made_and_is_no_device_of_the_other_kind(
    kind: DeviceKind, other: DeviceKind
) -> None:
    assert make(NAME, NOBODY, kind=kind) is True
    assert kind_of(NAME) == kind
    assert make(NAME, NOBODY, kind=kind) is False
    remedy = "give --tap" if kind == "tap" else "leave out --tap"
    refusal = f"{NAME} exists already and is a {kind.upper()} device: choose another name, or {remedy}"
    with pytest.raises(DeviceError, match=refusal):
        make(NAME, NOBODY, kind=other)
    remove(NAME)
    assert not interface_exists(NAME)


@in_own_network
def test_what_is_neither_a_tun_nor_a_tap_device_is_left_alone() -> None:
    with Netlink() as netlink:
        add(netlink, NAME)
    with pytest.raises(DeviceError, match="exists already and is neither a TUN nor a TAP device: choose another name"):
        make(NAME)
    with pytest.raises(DeviceError, match="is neither a TUN nor a TAP device, and was left alone"):
        remove(NAME)
    assert interface_exists(NAME)


@in_own_network
def test_what_is_not_there_cannot_be_removed() -> None:
    with pytest.raises(DeviceError, match=f"there is no device {NAME}"):
        remove(NAME)


@pytest.mark.parametrize("name", ["", "a name", "x" * 16, "a/b"])
def test_a_name_that_no_device_can_have_is_refused(name: str) -> None:
    for act in (make, remove):
        with pytest.raises(ConfigurationError):
            act(name)


@needs_root
@in_own_network
def test_an_ordinary_user_makes_none_and_removes_none_of_somebody_else() -> None:
    make("other0", 0)
    with ordinary_user():
        with pytest.raises(PrivilegeError):
            make(NAME)
        with pytest.raises(PrivilegeError):
            remove("other0")
    assert interface_exists("other0")
    assert not interface_exists(NAME)


@in_own_network
def test_user_ids_beyond_31_bits_are_kept() -> None:
    assert make(NAME, OTHERS) is True
    assert Path(f"/sys/class/net/{NAME}/owner").read_text().strip() in (str(OTHERS), str(OTHERS - 2**32))
