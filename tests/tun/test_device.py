"""What the kernel says of a device; the TUN devices themselves are in tests/netns."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from vpntun.errors import DeviceError
from vpntun.tun.device import is_up, mtu_of


def test_the_mtu_and_the_state_are_the_kernels() -> None:
    for _, name in socket.if_nameindex():
        folder = Path("/sys/class/net", name)
        if folder.exists():
            assert mtu_of(name) == int((folder / "mtu").read_text())
            assert is_up(name) == bool(int((folder / "flags").read_text(), 16) & 1)


def test_nobody_needs_sys_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    before = mtu_of("lo"), is_up("lo")

    def refuse(path: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    assert (mtu_of("lo"), is_up("lo")) == before


@pytest.mark.parametrize("ask", [mtu_of, is_up])
def test_a_device_that_has_another_name_by_now_is_a_device_error_that_says_so(ask: Callable[[str], object]) -> None:
    with pytest.raises(DeviceError, match=r"renamed.* name gone0"):
        ask("gone0")
