"""Opening of devices: the kinds that a tunnel takes, and a message about each reason why one cannot be had."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

import pytest
import pytun

from tests.machine import NOBODY, needs_root, ordinary_user
from tests.netconf.kernel import add, in_own_network
from vpntun.errors import ConfigurationError, DeviceError, PrivilegeError
from vpntun.netconf.netlink import Netlink
from vpntun.tun.device import KernelDevice
from vpntun.tun.opening import CLONE, KIND_FLAGS, MULTI_QUEUE, check_clone, check_name, flags_of, open_device
from vpntun.tun.persistent import remove
from vpntun.tun.queries import interface_exists
from vpntun.types import DeviceKind

NAME = "test0"
MS_NODEV = 4

needs_tun = pytest.mark.skipif(not Path(CLONE).exists(), reason=f"there is no {CLONE}")


def make_persistent(flags: int, name: str = NAME) -> None:
    device = pytun.TunTapDevice(name=name, flags=flags)
    device.persist(True)
    device.close()


def make_node(flags: int) -> None:
    """Mount a file system in this test's mounts, with a node of the TUN device that everybody may open."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"none", b"/dev/net", b"tmpfs", flags, None) == 0
    os.mknod(CLONE, stat.S_IFCHR | 0o666, os.makedev(10, 200))
    os.chmod(CLONE, 0o666)


# Names


@pytest.mark.parametrize("name", ["tun0", "a" * 15, "-x", "t\u00fcn", "wg0.1", "ALL", "\u4e2d\u6587"])
def test_a_name_that_the_kernel_takes_is_taken(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a" * 16,
        "\u00fc" * 8,
        "a b",
        "a\tb",
        "a\u2003b",
        "caf\u00e0",
        "a/b",
        "a:b",
        "tun%d",
        ".",
        "..",
        "t\udcfcn",
        "a\0b",
    ],
)
def test_a_name_that_no_interface_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be an interface's name"):
        check_name(name)


@needs_tun
@in_own_network
def test_the_kernel_takes_and_refuses_the_same_names() -> None:
    for name in ("t\u00fcn", "-x", "\u4e2d\u6587"):
        open_device(name).close()
    for name in ("caf\u00e0", "a/b", "a\x0bb"):
        with pytest.raises(DeviceError):
            open_device(name)


@pytest.mark.parametrize("name", ["all", "default"])
@needs_tun
@in_own_network
def test_a_name_that_the_kernel_reserves_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match=f"the device {name} cannot be created: the kernel reserves this name"):
        KernelDevice(name)


# Kinds of devices


@pytest.mark.parametrize("kind", KIND_FLAGS)
@pytest.mark.parametrize("more", [0, pytun.IFF_NO_PI, pytun.IFF_VNET_HDR, MULTI_QUEUE, MULTI_QUEUE | pytun.IFF_NO_PI])
@needs_tun
@in_own_network
def test_a_device_made_with_any_flags_is_attached_and_left_as_it_was(kind: DeviceKind, more: int) -> None:
    make_persistent(KIND_FLAGS[kind] | more)
    before = flags_of(NAME)
    assert before & KIND_FLAGS[kind]
    device = KernelDevice(NAME, kind)
    assert not device.created
    assert device.takes_tcp
    device.close()
    assert flags_of(NAME) == before
    remove(NAME)
    assert not interface_exists(NAME)


@needs_tun
@in_own_network
def test_a_device_with_several_queues_is_not_shared_with_another_program() -> None:
    other = pytun.TunTapDevice(name=NAME, flags=pytun.IFF_TUN | MULTI_QUEUE)
    other.up()
    with pytest.raises(DeviceError, match="busy"):
        KernelDevice(NAME)
    other.close()


@needs_tun
@in_own_network
def test_a_device_of_another_kind_is_refused_with_its_name_and_kind() -> None:
    make_persistent(pytun.IFF_TAP, "tap0")
    make_persistent(pytun.IFF_TAP | MULTI_QUEUE, "tap1")
    make_persistent(pytun.IFF_TUN, "tun0")
    with Netlink() as netlink:
        add(netlink, "cable0")
    for name in ("tap0", "tap1"):
        with pytest.raises(DeviceError, match=rf"{name} is a TAP device, and .*, or give -a \(Device = tap\)"):
            KernelDevice(name)
    with pytest.raises(DeviceError, match=r"tun0 is a TUN device, and .* a TAP device: .*, or leave out -a \(Device"):
        KernelDevice("tun0", "tap")
    for kind in KIND_FLAGS:
        for name in ("cable0", "lo"):
            with pytest.raises(DeviceError, match=f"{name} is neither a TUN nor a TAP device: choose another name"):
                KernelDevice(name, kind)


@pytest.mark.parametrize(("kind", "advice"), [("tun", "mktun test0"), ("tap", "mktun --tap test0")])
@needs_tun
@in_own_network
def test_an_ordinary_user_learns_how_root_makes_a_device_of_this_kind(kind: DeviceKind, advice: str) -> None:
    make_node(0)
    with ordinary_user(), pytest.raises(PrivilegeError, match=f"'vpntun {advice} --user {NOBODY}'"):
        KernelDevice(NAME, kind)


# /dev/net/tun


def test_a_node_that_is_missing_names_the_module(tmp_path: Path) -> None:
    for path in (tmp_path / "tun", tmp_path / "file" / "tun"):
        (tmp_path / "file").touch()
        with pytest.raises(DeviceError, match=f"there is no {path}: .*modprobe tun.*container"):
            check_clone(path)


def test_a_folder_or_a_file_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("folder", "a folder"), ("file", "another kind of file"), ("pipe", "another kind of file")):
        with pytest.raises(DeviceError, match=f"{tmp_path / name} is {kind}, not the TUN device: .*mknod"):
            check_clone(tmp_path / name)


@needs_root
def test_a_node_of_another_device_is_named_by_its_number(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "tun", stat.S_IFCHR | 0o666, os.makedev(10, 229))
    except PermissionError:
        pytest.skip("no node can be made here")
    with pytest.raises(DeviceError, match=r"is device 10:229, not the TUN device: .*mknod.*container"):
        check_clone(tmp_path / "tun")


@needs_tun
@in_own_network
def test_a_node_on_a_file_system_without_devices_is_no_lack_of_a_capability() -> None:
    make_node(MS_NODEV)
    with pytest.raises(PrivilegeError, match=f"{CLONE} may not be opened although its mode permits it: .*nodev"):
        open_device(NAME)
