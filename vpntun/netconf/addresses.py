"""Addresses of this machine, refreshed on demand and never more than a second old.

A look-up checks, at most once a second, whether the kernel has announced a change, which costs next to nothing. Only
after a change does it ask the kernel for all addresses, which takes some milliseconds. If the kernel does not answer,
the previous addresses stay valid, and the kernel is asked again a second later.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from vpntun.errors import DeviceError
from vpntun.netconf.netlink import Netlink
from vpntun.runtime.clock import boottime
from vpntun.wire.ip import is_link_local

SECONDS_BETWEEN = 1.0

AddressOnDevice = tuple[bytes, str]
"""An address of 4 or 16 bytes, and the name of its device."""


def read_all() -> list[AddressOnDevice]:
    """Ask the kernel for all addresses. Raises OSError or DeviceError."""
    with Netlink() as netlink:
        return [(ip_address(each.address).packed, each.device) for each in netlink.addresses()]


class OwnAddresses:
    """This machine's addresses, and which of them the tunnel's device has.

    `has_changed`: whether the kernel has announced a change since the last call. `read`: ask for the addresses.
    """

    def __init__(
        self,
        device: str,
        has_changed: Callable[[], bool],
        read: Callable[[], list[AddressOnDevice]] = read_all,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._device = device
        self._has_changed = has_changed
        self._read = read
        self._clock = clock
        self._check_at = clock() + SECONDS_BETWEEN
        self._all: frozenset[bytes] = frozenset()
        self._of_device: dict[int, bytes] = {}
        self._is_known = False
        self._refresh()

    def __contains__(self, address: bytes) -> bool:
        """Whether this machine has the address, so that a packet to it has reached its destination."""
        now = self._clock()
        if now >= self._check_at:
            self._check_at = now + SECONDS_BETWEEN
            if self._has_changed() or not self._is_known:
                self._refresh()
        return address in self._all

    def of_device(self, size: int) -> bytes | None:
        """Return the first address of the tunnel's device that has `size` bytes, 4 or 16, and is not link-local."""
        return self._of_device.get(size)

    def _refresh(self) -> None:
        self._is_known = False
        with suppress(OSError, DeviceError):
            found = self._read()
            self._all = frozenset(address for address, _ in found)
            own = [address for address, device in found if device == self._device and not is_link_local(address)]
            self._of_device = {len(address): address for address in reversed(own)}
            self._is_known = True
