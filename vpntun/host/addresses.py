"""Which addresses are this machine's own. Law: nothing is asked while nobody wants to know, and no answer is old.

The kernel is asked again ten seconds after it was asked last, at the next question; that takes it and pyroute2 two
milliseconds. Where it does not answer, what it said before stands.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from vpntun.host.netlink import netlink_error
from vpntun.wire.ip import is_link_local

SECONDS_TO_TRUST = 10.0

Look = Callable[[], list[tuple[bytes, str]]]
"""Every address, 4 or 16 bytes, and the name of its device."""


class OwnAddresses:
    """This machine's addresses, and those of the tunnel's device among them."""

    def __init__(self, device: str, look: Look | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._device = device
        self._look = look or look_at_all
        self._clock = clock
        self._all: frozenset[bytes] = frozenset()
        self._of_device: dict[int, bytes] = {}
        self._look_again()

    def __contains__(self, address: bytes) -> bool:
        """Whether a packet to this address has arrived."""
        if self._clock() >= self._look_at:
            self._look_again()
        return address in self._all

    def of_device(self, size: int) -> bytes | None:
        """The first address of the tunnel's device with so many bytes, 4 or 16, that is not link-local."""
        return self._of_device.get(size)

    def _look_again(self) -> None:
        self._look_at = self._clock() + SECONDS_TO_TRUST
        with suppress(OSError, netlink_error()):
            found = self._look()
            self._all = frozenset(address for address, _ in found)
            own = [address for address, device in found if device == self._device and not is_link_local(address)]
            self._of_device = {len(address): address for address in reversed(own)}


def look_at_all() -> list[tuple[bytes, str]]:
    """What the kernel says. Raises OSError, or `netlink_error()`."""
    from pyroute2 import IPRoute

    names = dict(socket.if_nameindex())
    with IPRoute() as netlink:
        return [
            (ip_address(address.get("local") or address.get("address")).packed, names.get(address["index"], ""))
            for address in netlink.get_addr()
            if address["family"] in (socket.AF_INET, socket.AF_INET6)
        ]
