"""Notices about a device or a bridge that is taken down or removed while the tunnel runs."""

from __future__ import annotations

from collections.abc import Iterable

from tests.machine import logged
from vpntun.netconf.down import DownNotices
from vpntun.netconf.netlink import Link

DEVICE, BRIDGE = "tap3", "br0"
TAKEN_DOWN = "the bridge was taken down, and nothing passes: 'ip link set br0 up' brings it up"
REMOVED = "the bridge br0 was removed, and nothing passes until it is made again"
IFF_UP = 1


def links(device: bool | None, bridge: bool | None, master: int | None = None) -> dict[str, Link]:
    """A host with a device and a bridge, number 2, each up, down, or (None) not there.

    `master`: the number of the bridge that the device is in; unless given, this one if it is there.
    """
    states = {DEVICE: device, BRIDGE: bridge}
    found = {
        name: Link(number, name, IFF_UP if is_up else 0, 1500, "")
        for number, (name, is_up) in enumerate(states.items(), 1)
        if is_up is not None
    }
    if master is None:
        master = found[BRIDGE].number if BRIDGE in found else 0
    if device is not None:
        found[DEVICE] = found[DEVICE]._replace(master=master)
    return found


def said(states: Iterable[tuple[bool | None, bool | None]], bridge: str | None = BRIDGE) -> list[str]:
    """The notices while the host has these states, one after the other."""
    notices = DownNotices(DEVICE, bridge)
    with logged() as lines:
        for device, of_bridge in states:
            notices.look(links(device, of_bridge))
    return lines


def test_a_bridge_that_was_taken_down_or_removed_is_reported_once_each_time() -> None:
    assert said([(True, True), (True, False), (True, False)]) == [TAKEN_DOWN]
    assert said([(True, True), (True, None), (True, None), (True, True), (True, None)]) == [REMOVED, REMOVED]
    assert said([(True, True), (True, False), (True, None)]) == [TAKEN_DOWN, REMOVED]


def test_a_bridge_that_was_found_down_or_is_being_made_again_is_not_reported() -> None:
    assert said([(True, False), (True, False), (True, True)]) == []
    assert said([(True, True), (True, None), (True, False), (True, True)]) == [REMOVED]


def test_a_bridge_counts_again_once_the_device_is_in_no_other_one() -> None:
    notices = DownNotices(DEVICE, BRIDGE)
    with logged() as lines:
        notices.look(links(True, True))
        notices.look(links(True, False, master=9))
        notices.look(links(True, None, master=9))
        assert lines == []
        notices.look(links(True, None, master=0))
        assert lines == [REMOVED]


def test_a_device_that_was_taken_down_is_reported_and_one_that_has_gone_is_not() -> None:
    [line] = said([(True, None), (False, None), (False, None)], None)
    assert line.startswith("the device was taken down, and nothing passes: 'ip link set tap3 up' brings it up")
    assert said([(True, None), (None, None)], None) == []


def test_a_bridge_that_the_tunnel_was_not_told_to_join_is_not_its_concern() -> None:
    assert said([(True, True), (True, None)], None) == []
