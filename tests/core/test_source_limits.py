"""Rate limits by network: the kernel's table of cases, independence of networks, and bounded memory."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from vpntun.core import source_limits
from vpntun.core.source_limits import BURST, MOST_NETWORKS, SourceLimits

HERE = bytes((192, 0, 2, 1))
THERE = bytes((192, 0, 2, 2))


def taken(limits: SourceLimits, address: bytes, now: float, count: int = 20) -> int:
    return sum(limits.allow(address, now) for _ in range(count))


def test_a_network_may_send_five_at_once_and_then_twenty_a_second() -> None:
    """The cases of the kernel's selftest/ratelimiter.c: 50 ms give one, and 100 ms give two."""
    limits, now = SourceLimits(), 1000.0
    assert [limits.allow(HERE, now) for _ in range(BURST + 1)] == [True] * BURST + [False]
    now += 0.0501
    assert [limits.allow(HERE, now) for _ in range(2)] == [True, False]
    now += 0.1001
    assert [limits.allow(HERE, now) for _ in range(3)] == [True, True, False]


def test_networks_do_not_share_a_limit() -> None:
    limits = SourceLimits()
    assert taken(limits, HERE, 1000.0) == BURST
    assert taken(limits, THERE, 1000.0) == BURST


def test_an_ipv6_network_of_64_bits_has_one_limit() -> None:
    limits = SourceLimits()
    one, same, other = (ip_address(text).packed for text in ("2001:db8::1", "2001:db8::2:3", "2001:db8:0:1::1"))
    assert taken(limits, one, 1000.0) == BURST
    assert taken(limits, same, 1000.0) == 0
    assert taken(limits, other, 1000.0) == BURST


def test_a_network_that_goes_on_sending_stays_limited_across_sweeps() -> None:
    limits = SourceLimits()
    allowed = sum(limits.allow(HERE, 1000.0 + number / 100) for number in range(1000))
    assert allowed <= BURST + 10 * source_limits.RATE


def test_a_network_that_sends_nothing_for_two_seconds_is_forgotten() -> None:
    limits = SourceLimits()
    limits.allow(HERE, 1000.0)
    assert len(limits) == 1
    limits.allow(THERE, 1001.1)
    assert len(limits) == 2
    limits.allow(THERE, 1002.2)
    assert len(limits) == 1
    limits.allow(HERE, 1010.0)
    assert len(limits) == 1


def test_memory_is_bounded_and_known_networks_are_not_displaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_NETWORKS == 65_536
    monkeypatch.setattr(source_limits, "MOST_NETWORKS", 100)
    limits = SourceLimits()
    assert limits.allow(HERE, 1000.0)
    assert sum(limits.allow(number.to_bytes(4, "big"), 1000.0) for number in range(1000)) == 99
    assert len(limits) == 100
    assert limits.allow(HERE, 1000.0)
    limits.clear()
    assert len(limits) == 0
    assert limits.allow(THERE, 1000.0)
