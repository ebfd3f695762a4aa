"""Which addresses are this machine's own. Law: nothing is asked while nobody wants to know, and no answer is old.

Once a second, at a question, it is looked whether the kernel has told of a change, which costs next to nothing. Only
then is it asked for all addresses again, which takes some milliseconds. Where it does not answer, what it said before
stands, and it is asked again a second later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address

from vpntun.netconf.netlink import Netlink, netlink_error
from vpntun.wire.ip import is_link_local

SECONDS_BETWEEN = 1.0

AddressOnDevice = tuple[bytes, str]
"""4 or 16 bytes, and the name of its device."""


def look_at_all() -> list[AddressOnDevice]:
    """What the kernel says. Raises OSError, or `netlink_error()`."""
    with Netlink() as netlink:
        return [(ip_address(each.address).packed, each.device) for each in netlink.addresses()]


class OwnAddresses:
    """This machine's addresses, and those of the tunnel's device among them.

    `has_changed`: whether the kernel has told of a change since the last call.
    """

    def __init__(
        self,
        device: str,
        has_changed: Callable[[], bool],
        look: Callable[[], list[AddressOnDevice]] = look_at_all,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._has_changed = has_changed
        self._look = look
        self._clock = clock
        self._ask_at = clock() + SECONDS_BETWEEN
        self._all: frozenset[bytes] = frozenset()
        self._of_device: dict[int, bytes] = {}
        self._is_known = False
        self._look_again()

    def __contains__(self, address: bytes) -> bool:
        """Whether a packet to this address has arrived."""
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + SECONDS_BETWEEN
            if self._has_changed() or not self._is_known:
                self._look_again()
        return address in self._all

    def of_device(self, size: int) -> bytes | None:
        """The first address of the tunnel's device with so many bytes, 4 or 16, that is not link-local."""
        return self._of_device.get(size)

    def _look_again(self) -> None:
        self._is_known = False
        with suppress(OSError, netlink_error()):
            found = self._look()
            self._all = frozenset(address for address, _ in found)
            own = [address for address, device in found if device == self._device and not is_link_local(address)]
            self._of_device = {len(address): address for address in reversed(own)}
            self._is_known = True
