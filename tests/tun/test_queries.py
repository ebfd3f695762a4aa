"""Queries about a device by name; tests/netns tests the TUN devices themselves."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.netconf.kernel import add, in_own_network
from vpntun.errors import DeviceError
from vpntun.netconf.netlink import Netlink
from vpntun.tun.device import KernelDevice
from vpntun.tun.queries import is_up, kind_of, master_of, mtu_of


def test_mtu_and_state_are_what_the_kernel_says() -> None:
    for _, name in socket.if_nameindex():
        folder = Path("/sys/class/net", name)
        if folder.exists():
            assert mtu_of(name) == int((folder / "mtu").read_text())
            assert is_up(name) == bool(int((folder / "flags").read_text(), 16) & 1)


def test_mtu_and_state_need_no_sysfs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mtu_of("lo"), is_up("lo")

    def refuse(path: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert (mtu_of("lo"), is_up("lo")) == before


@pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")
@in_own_network
def test_tun_and_tap_devices_are_told_apart_and_from_all_others() -> None:
    with closing(KernelDevice("test0", "tun")), closing(KernelDevice("test1", "tap")), Netlink() as netlink:
        add(netlink, "cable0")
        assert [kind_of(name) for name in ("test0", "test1")] == ["tun", "tap"]
        assert [kind_of(name) for name in ("cable0", "lo", "gone0")] == [None, None, None]


@pytest.mark.parametrize("name", ["lo", "gone0"])
def test_a_device_in_no_bridge_and_a_device_that_is_gone_have_no_master(name: str) -> None:
    assert master_of(name) == ""


@pytest.mark.parametrize("ask", [mtu_of, is_up])
def test_a_renamed_device_is_a_device_error_with_advice(ask: Callable[[str], object]) -> None:
    with pytest.raises(DeviceError, match=r"renamed.* name gone0"):
        ask("gone0")
