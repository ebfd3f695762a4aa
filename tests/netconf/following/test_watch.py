"""The watch of this host's network: what it tells, how often, and what it survives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.machine import HandLoop, logged, no_more_descriptors
from tests.netconf.kernel import add_up, in_own_network
from vpntun.errors import DeviceError
from vpntun.netconf.following.watch import EVERYTHING, SECONDS_BETWEEN, Changed, NetworkWatch
from vpntun.netconf.netlink import AF_INET, Netlink

KINDS = tuple(Changed)


@contextmanager
def watching() -> Iterator[tuple[HandLoop, NetworkWatch, list[Changed]]]:
    """A watch, and the list of all that it tells, a kind at a time."""
    loop = HandLoop()
    watch = NetworkWatch(loop)
    told: list[Changed] = []
    for kind in KINDS:
        watch.subscribe(kind, lambda kind=kind: told.append(kind))  # type: ignore[misc]
    try:
        yield loop, watch, told
    finally:
        watch.close()
        loop.close()


def change(netlink: Netlink, kind: Changed) -> None:
    """Make one change of this kind."""
    index = netlink.index_of("lo")
    match kind:
        case Changed.LINKS:
            netlink.requests.link("set", index=index, mtu=1400)
        case Changed.ADDRESSES:
            netlink.requests.addr("add", index=index, address="10.9.0.1", prefixlen=32)
        case Changed.ROUTES:
            netlink.requests.route("add", dst="10.9.0.0/24", oif=index, table=77)
        case Changed.RULES:
            netlink.requests.rule("add", family=AF_INET, priority=77, table=77)


@in_own_network
def test_the_kinds_are_told_at_once_and_alone() -> None:
    with Netlink() as netlink:
        netlink.requests.link("set", index=netlink.index_of("lo"), state="up")
        for kind in KINDS:
            with watching() as (loop, _, told):
                change(netlink, kind)
                loop.poll(1)
                # An address brings a route of its own.
                assert told == ([kind, Changed.ROUTES] if kind is Changed.ADDRESSES else [kind])


@in_own_network
def test_nothing_is_told_while_nothing_changes() -> None:
    with watching() as (loop, _, told):
        loop.settle()
        assert told == []


@in_own_network
def test_changes_without_end_are_told_four_times_a_second_and_the_last_is_not_missed() -> None:
    with watching() as (loop, _, told), Netlink() as netlink:
        index = netlink.index_of("lo")
        for number in range(40):
            netlink.requests.addr("add", index=index, address=f"10.9.0.{number}", prefixlen=32)
            loop.pass_time(SECONDS_BETWEEN / 4)
            loop.poll()
        assert 10 <= told.count(Changed.ADDRESSES) <= 12
        loop.pass_time(SECONDS_BETWEEN)
        loop.poll()
        told.clear()
        change(netlink, Changed.RULES)
        loop.poll()
        loop.pass_time(SECONDS_BETWEEN)
        loop.poll()
        assert told == [Changed.RULES]


@in_own_network
def test_if_more_was_announced_than_there_is_room_for_everything_may_have_changed() -> None:
    with watching() as (loop, _, told), Netlink() as netlink:
        index = netlink.index_of("lo")
        for number in range(1500):
            address = f"10.{number >> 8}.{number & 255}.1"
            netlink.requests.addr("add", index=index, address=address, prefixlen=32)
        loop.poll()
        assert set(told) == set(KINDS)


@in_own_network
@pytest.mark.parametrize("error", [DeviceError("the device is gone"), OSError(24, "Too many open files")])
def test_what_a_subscriber_raises_is_logged_and_ends_nothing(error: Exception) -> None:
    def fail() -> None:
        raise error

    with watching() as (loop, watch, told), Netlink() as netlink, logged() as lines:
        watch.subscribe(EVERYTHING, fail)
        watch.subscribe(Changed.RULES, lambda: told.append(EVERYTHING))
        change(netlink, Changed.RULES)
        loop.poll(1)
        assert told == [Changed.RULES, EVERYTHING]
        assert str(error) in lines[-1]


@in_own_network
def test_a_bug_of_a_subscriber_is_counted_and_the_next_is_told_nevertheless() -> None:
    def fail() -> None:
        raise KeyError

    with watching() as (loop, watch, told), Netlink() as netlink, logged():
        watch.subscribe(EVERYTHING, fail)
        watch.subscribe(Changed.RULES, lambda: told.append(EVERYTHING))
        change(netlink, Changed.RULES)
        loop.poll(1)
        assert told == [Changed.RULES, EVERYTHING]
        assert loop.internal_errors.count == 1


@in_own_network
def test_one_who_asks_is_told_once_of_each_change() -> None:
    with watching() as (loop, watch, _), Netlink() as netlink:
        has_changed: Callable[[], bool] = watch.since_last_asked(Changed.ADDRESSES)
        assert has_changed() is False
        add_up(netlink, "test0", "10.9.0.1/24")
        loop.poll(1)
        assert has_changed() is True
        assert has_changed() is False


def test_without_a_descriptor_for_it_the_tunnel_comes_up_and_says_what_is_missing() -> None:
    loop = HandLoop()
    with no_more_descriptors(), logged() as lines:
        watch = NetworkWatch(loop)
    assert "changes of this host's network will not be noticed" in lines[-1]
    watch.close()
    loop.close()
