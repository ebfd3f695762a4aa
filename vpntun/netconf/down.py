"""Notices while a tunnel runs: its device was taken down, or the bridge that it is a port of was, or was removed.

Nothing passes then, and nothing else says so. The device and the bridge stay as their operator has made them.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from vpntun.netconf.netlink import Link
from vpntun.runtime.log import notice


class _State(Enum):
    UP = 1
    DOWN = 2
    GONE = 3


class DownNotices:
    """The notices about one device, and about its bridge if it has one.

    The first look tells how they were found, which is not reported. Nor is a bridge that was removed and made again: it
    is down until its maker brings it up. While the device is in another bridge, or its own has another name, that one
    does not count.
    """

    def __init__(self, device: str, bridge: str | None) -> None:
        self._device = device
        self._bridge = bridge
        self._of_device: _State | None = None
        self._of_bridge: _State | None = None

    def look(self, links: Mapping[str, Link]) -> None:
        """Compare with the last look. `links`: this host's devices by name."""
        former, self._of_device = self._of_device, _state(links.get(self._device))
        if former is _State.UP and self._of_device is _State.DOWN:
            notice(
                "the device was taken down, and nothing passes: 'ip link set %s up' brings it up, with its addresses "
                "and routes",
                self._device,
            )
        if self._bridge is not None and not _is_elsewhere(links.get(self._device), links.get(self._bridge)):
            former, self._of_bridge = self._of_bridge, _state(links.get(self._bridge))
            self._notice_bridge(former, self._of_bridge, self._bridge)

    def _notice_bridge(self, former: _State | None, now: _State, bridge: str) -> None:
        if former is _State.UP and now is _State.DOWN:
            notice("the bridge was taken down, and nothing passes: 'ip link set %s up' brings it up", bridge)
        elif former in (_State.UP, _State.DOWN) and now is _State.GONE:
            notice("the bridge %s was removed, and nothing passes until it is made again", bridge)


def _is_elsewhere(device: Link | None, bridge: Link | None) -> bool:
    """Whether the device is in another bridge than its own."""
    return device is not None and device.master not in (0, bridge.number if bridge is not None else 0)


def _state(link: Link | None) -> _State:
    if link is None:
        return _State.GONE
    return _State.UP if link.is_up else _State.DOWN
