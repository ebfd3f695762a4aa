"""No peer takes an address that another port uses, or pushes another's out; what is old is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.mac_table import AGE, LOCAL, LOCAL_PATIENCE, MOST, MacTable

LAPTOP, DESK, SERVER = (bytes([2, 0, 0, 0, 0, number]) for number in (1, 2, 3))
OFFICE, HOME = "office", "home"


class Emptied:
    """A cache that counts how often it was emptied."""

    def __init__(self) -> None:
        self.times = 0

    def clear(self) -> None:
        self.times += 1


@pytest.fixture
def table() -> MacTable[str]:
    return MacTable()


def numbered(number: int) -> bytes:
    return b"\x06" + number.to_bytes(5, "big")


def test_an_address_is_found_where_it_was_seen_until_it_is_five_minutes_old(table: MacTable[str]) -> None:
    assert table.find(LAPTOP, 0) is None
    assert table.claim(LAPTOP, OFFICE, 0)
    assert table.find(LAPTOP, AGE - 1) == OFFICE
    assert table.find(LAPTOP, AGE) is None
    assert len(table) == 0


def test_seeing_an_address_again_keeps_it(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    table.claim(LAPTOP, OFFICE, AGE - 1)
    assert table.find(LAPTOP, AGE + 100) == OFFICE


def test_a_peer_cannot_claim_an_address_that_is_fresh_at_another(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    assert not table.claim(LAPTOP, HOME, AGE - 1)
    assert table.find(LAPTOP, AGE - 1) == OFFICE
    assert table.claim(LAPTOP, HOME, AGE)
    assert table.find(LAPTOP, AGE) == HOME


def test_a_refused_claim_does_not_keep_the_address_of_its_owner_fresh(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    for now in range(0, int(AGE), 10):
        assert not table.claim(LAPTOP, HOME, now)
    assert table.claim(LAPTOP, HOME, AGE)


@pytest.mark.parametrize(("former", "latter"), [(OFFICE, LOCAL), (LOCAL, OFFICE)])
def test_an_address_moves_between_a_peer_and_this_side_after_a_short_silence(
    table: MacTable[str], former: Any, latter: Any
) -> None:
    table.claim(LAPTOP, former, 0)
    assert not table.claim(LAPTOP, latter, LOCAL_PATIENCE - 1)
    assert table.find(LAPTOP, LOCAL_PATIENCE - 1) == former
    assert table.claim(LAPTOP, latter, LOCAL_PATIENCE)
    assert table.find(LAPTOP, LOCAL_PATIENCE) == latter


def test_a_pinned_address_is_always_of_this_side(table: MacTable[str]) -> None:
    table.claim(SERVER, OFFICE, 0)
    table.pin(SERVER)
    assert table.find(SERVER, 10 * AGE) is LOCAL
    assert table.claim(SERVER, LOCAL, 0)
    assert not table.claim(SERVER, OFFICE, 10 * AGE)
    table.pin(DESK)
    assert table.claim(SERVER, OFFICE, 10 * AGE)


def test_a_peer_with_too_many_addresses_loses_its_own_oldest_and_nobody_elses(table: MacTable[str]) -> None:
    table.share_among(4)
    table.claim(LAPTOP, OFFICE, 0)
    share = MOST // 4
    for number in range(share + 10):
        assert table.claim(numbered(number), HOME, 1)
    assert len(table) == share + 1
    assert table.find(LAPTOP, 2) == OFFICE
    assert [table.find(numbered(number), 2) for number in range(10)] == [None] * 10
    assert table.find(numbered(10), 2) == HOME


def test_an_address_that_is_in_use_is_not_the_oldest(table: MacTable[str]) -> None:
    table.share_among(MOST // 2)
    table.claim(LAPTOP, HOME, 0)
    table.claim(DESK, HOME, 1)
    table.claim(LAPTOP, HOME, 2)
    table.claim(SERVER, HOME, 3)
    assert (table.find(LAPTOP, 4), table.find(DESK, 4), table.find(SERVER, 4)) == (HOME, None, HOME)


def test_more_ports_make_each_share_smaller_at_once(table: MacTable[str]) -> None:
    for number in range(MOST):
        table.claim(numbered(number), OFFICE, 0)
    assert len(table) == MOST
    table.share_among(MOST)
    assert len(table) == 1
    table.share_among(10 * MOST)
    assert table.claim(LAPTOP, HOME, 0)


def test_a_removed_port_leaves_nothing(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    table.claim(DESK, HOME, 0)
    table.forget(OFFICE)
    assert table.find(LAPTOP, 1) is None
    assert table.find(DESK, 1) == HOME
    assert table.claim(LAPTOP, HOME, 1)


def test_old_addresses_are_forgotten_together(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    table.claim(DESK, HOME, 100)
    table.forget_old(AGE)
    assert len(table) == 1
    assert table.find(DESK, AGE) == HOME


def test_entries_name_port_and_age_and_leave_out_what_is_old(table: MacTable[str]) -> None:
    table.claim(LAPTOP, OFFICE, 0)
    table.claim(DESK, LOCAL, 200)
    table.pin(SERVER)
    assert list(table.entries(250)) == [(SERVER, LOCAL, 0.0), (LAPTOP, OFFICE, 250.0), (DESK, LOCAL, 50.0)]
    assert list(table.entries(310)) == [(SERVER, LOCAL, 0.0), (DESK, LOCAL, 110.0)]


def test_what_others_concluded_is_forgotten_when_an_address_loses_its_port_and_not_before(
    table: MacTable[str],
) -> None:
    cache = Emptied()
    table.empty_on_change(cache)
    table.claim(LAPTOP, OFFICE, 0)
    table.claim(DESK, HOME, 0)
    table.claim(LAPTOP, OFFICE, 1)
    table.claim(LAPTOP, HOME, 2)
    assert cache.times == 0
    table.claim(LAPTOP, HOME, AGE + 1)
    assert cache.times == 1
    table.find(DESK, AGE)
    assert cache.times == 2


claims = st.tuples(st.integers(0, 20), st.sampled_from([OFFICE, HOME, LOCAL]), st.floats(0, 40))


@given(st.lists(claims, max_size=80), st.integers(2, MOST))
def test_an_address_never_leaves_a_port_that_has_shown_it_in_the_last_seconds(claimed: list, ports: int) -> None:  # type: ignore[type-arg]
    table: MacTable[str] = MacTable()
    table.share_among(ports)
    now = 0.0
    for number, port, pause in claimed:
        now += pause
        before = table.find(numbered(number), now)
        shown = {address: seconds for address, _, seconds in table.entries(now)}
        granted = table.claim(numbered(number), port, now)
        after = table.find(numbered(number), now)
        assert granted == (after is port or after == port)
        if before is not None and before != port:
            assert granted == (LOCAL in (port, before) and shown[numbered(number)] >= LOCAL_PATIENCE)
        assert len(table) <= MOST
        for owner in (OFFICE, HOME, LOCAL):
            assert sum(each == owner for _, each, _ in table.entries(now)) <= MOST // ports
