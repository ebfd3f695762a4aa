"""A device that is made here takes no routes and no addresses from router messages; others keep their settings."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from tests.machine import logged
from tests.netconf.kernel import in_own_network
from vpntun.tun.device import KernelDevice
from vpntun.tun.persistent import make
from vpntun.tun.router_settings import CONF, ignore_routers

NAME = "test0"
V6 = ("accept_ra", "autoconf", "accept_redirects")
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096

needs_tun = pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="there is no /dev/net/tun")


def settings(device: str = NAME) -> list[str]:
    paths = [CONF / "ipv6/conf" / device / each for each in V6] + [CONF / "ipv4/conf" / device / "accept_redirects"]
    return [path.read_text().strip() for path in paths]


def make_proc_sys_read_only() -> None:
    """Do to this test's mounts what container engines do."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (MS_BIND, MS_BIND | MS_REMOUNT | MS_RDONLY):
        assert libc.mount(b"/proc/sys", b"/proc/sys", None, flags, None) == 0, os.strerror(ctypes.get_errno())


@needs_tun
@in_own_network
def test_a_new_device_ignores_routers_and_the_hosts_own_settings_stay() -> None:
    before = settings("all"), settings("default")
    device = KernelDevice(NAME)
    assert settings() == ["0"] * 4
    assert (settings("all"), settings("default")) == before
    device.close()


@needs_tun
@in_own_network
def test_a_persistent_device_is_made_with_them_and_keeps_what_its_owner_sets_later() -> None:
    assert make(NAME)
    assert settings() == ["0"] * 4
    (CONF / "ipv6/conf" / NAME / "accept_ra").write_text("1")
    assert not make(NAME)
    KernelDevice(NAME).close()
    assert settings() == ["1", "0", "0", "0"]


@needs_tun
@in_own_network
def test_a_read_only_proc_is_at_most_worth_a_line_under_v() -> None:
    make_proc_sys_read_only()
    with logged() as lines:
        KernelDevice(NAME).close()
    assert len([line for line in lines if "accept_ra cannot be set to 0 (" in line]) == 1
    with logged(25) as lines:
        KernelDevice(NAME).close()
    assert lines == []


def test_nothing_is_written_where_it_is_right_already_and_what_is_not_there_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ipv4/conf" / NAME
    folder.mkdir(parents=True)
    (folder / "accept_redirects").write_text("0\n")

    def refuse(path: Path, *_: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_text", refuse)
    with logged() as lines:
        ignore_routers(NAME, tmp_path)
    assert lines == []
