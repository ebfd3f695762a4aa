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
    for number in range(MOST + 10):
        assert table.claim(numbered(number), HOME, 1)
    assert len(table) == MOST
    assert table.find(LAPTOP, 2) == OFFICE
    assert [table.find(numbered(number), 2) for number in range(11)] == [None] * 11
    assert table.find(numbered(11), 2) == HOME


def test_a_port_gets_its_share_of_a_full_table_from_the_port_that_has_most() -> None:
    table: MacTable[str] = MacTable(12)
    table.share_among(3)
    for number in range(3):
        table.claim(numbered(number), LOCAL, 0)
    for number in range(10, 20):
        table.claim(numbered(number), HOME, 1)
    for number in range(20, 25):
        assert table.claim(numbered(number), OFFICE, 2)
    ports = [port for _, port, _ in table.entries(3)]
    assert [ports.count(port) for port in (LOCAL, HOME, OFFICE)] == [3, 5, 4]
    kept = [number for number in range(25) if table.find(numbered(number), 3)]
    assert kept == [*range(3), *range(15, 20), *range(21, 25)]


def test_an_address_that_is_in_use_is_not_the_oldest() -> None:
    table: MacTable[str] = MacTable(2)
    table.claim(LAPTOP, HOME, 0)
    table.claim(DESK, HOME, 1)
    table.claim(LAPTOP, HOME, 2)
    table.claim(SERVER, HOME, 3)
    assert (table.find(LAPTOP, 4), table.find(DESK, 4), table.find(SERVER, 4)) == (HOME, None, HOME)


def test_more_ports_than_addresses_still_have_room_for_one(table: MacTable[str]) -> None:
    for number in range(MOST):
        table.claim(numbered(number), OFFICE, 0)
    table.share_among(10 * MOST)
    assert table.claim(LAPTOP, HOME, 0)
    assert len(table) == MOST


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


@given(st.lists(claims, max_size=80), st.integers(3, 30))
def test_nobody_takes_an_address_that_was_shown_in_the_last_seconds_nor_the_share_of_another_port(
    claimed: list[tuple[int, Any, float]], most: int
) -> None:
    table: MacTable[str] = MacTable(most)
    table.share_among(3)
    now = 0.0
    for number, port, pause in claimed:
        now += pause
        address = numbered(number)
        before = {address: (owner, seconds) for address, owner, seconds in table.entries(now)}
        granted = table.claim(address, port, now)
        after = {address: owner for address, owner, _ in table.entries(now)}
        assert granted == (after.get(address) == port)
        if address in before and before[address][0] != port:
            owner, seconds = before[address]
            assert granted == (LOCAL in (port, owner) and seconds >= LOCAL_PATIENCE)
        assert len(table) <= most
        had = [owner for owner, _ in before.values()]
        for lost in before.keys() - after.keys():
            owner = before[lost][0]
            assert had.count(owner) > most // 3 or (owner == port and had.count(owner) == most // 3)
