"""Frames that are decided by one look-up go where a look at the table would send them, and are refused as there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.switching.lan import ALL, Lan, frame, station
from tests.machine import HandLoop
from vpntun.core.mac_table import AGE
from vpntun.datapath.switching.header_cache import MOST_HEADERS, HeaderCache, header_of

A, B, C, D = map(station, (1, 2, 3, 4))


@pytest.fixture
def flowing(loop: HandLoop) -> Iterator[Lan]:
    """The network while frames pass in all directions, so that all caches are filled."""
    lan = Lan(loop)
    for end, address in zip(lan.ends, (A, B, C, D), strict=True):
        lan.send(end, frame(address, ALL))
    for _ in range(2):
        lan.send(lan.alice, frame(A, B), frame(A, C))
        lan.send(lan.bob, frame(B, A), frame(B, C))
        lan.send(lan.carol, frame(C, A), frame(C, B))
    lan.arrived()
    yield lan
    lan.close()


def test_a_frame_with_the_header_of_another_peers_frames_is_refused(flowing: Lan) -> None:
    for destination in (B, C):
        flowing.send_record(flowing.daves, (frame(A, destination), 0))
    assert flowing.arrived() == ([], [], [], [])
    assert flowing.bob.drops["MAC address of another peer"] == 2
    flowing.send(flowing.alice, frame(A, B), frame(A, C))
    assert flowing.arrived() == ([], [frame(A, B)], [frame(A, C)], [])


def test_a_frame_of_this_side_that_a_peer_brings_back_is_refused(flowing: Lan) -> None:
    flowing.send_record(flowing.alices, (frame(B, C), 0))
    assert flowing.arrived() == ([], [], [], [])
    assert flowing.bob.drops["frame came back"] == 1


def test_allowed_addresses_that_change_hold_for_the_next_frame(flowing: Lan) -> None:
    switch = flowing.bob.engine.switch
    assert switch is not None
    switch.allow(flowing.to_alice, frozenset({D}))
    flowing.send(flowing.alice, frame(A, B), frame(A, C))
    assert flowing.arrived() == ([], [], [], [])
    assert flowing.bob.drops["MAC address not allowed"] == 2


def test_frames_follow_a_station_that_has_moved(flowing: Lan) -> None:
    flowing.loop.pass_time(AGE + 1.0)
    for wire in (flowing.alices, flowing.carols, flowing.daves):
        wire.shake_hands()
    flowing.send(flowing.dave, frame(A, ALL))
    flowing.arrived()
    flowing.send(flowing.bob, frame(B, A))
    assert flowing.arrived() == ([], [], [], [frame(B, A)])


def test_frames_for_all_still_reach_all(flowing: Lan) -> None:
    for _ in range(2):
        flowing.send(flowing.bob, frame(B, ALL))
        assert flowing.arrived() == ([frame(B, ALL)], [], [frame(B, ALL)], [frame(B, ALL)])
        flowing.send(flowing.carol, frame(C, ALL))
        assert flowing.arrived() == ([frame(C, ALL)], [frame(C, ALL)], [], [frame(C, ALL)])


def test_a_frame_that_is_too_short_for_a_header_has_none_of_the_kept_ones() -> None:
    cache: HeaderCache[int] = HeaderCache()
    cache.keep(header_of(frame(A, B)), 1)
    assert cache.find(header_of(frame(A, B, b"another"))) == 1
    assert cache.find(header_of(frame(A, B)[:13])) is None


def test_a_bounded_number_is_kept() -> None:
    cache: HeaderCache[int] = HeaderCache()
    for number in range(3 * MOST_HEADERS):
        cache.keep(header_of(frame(station(number), B)), number)
        assert cache.find(header_of(frame(station(number), B))) == number
    assert sum(cache.find(header_of(frame(station(n), B))) is not None for n in range(3 * MOST_HEADERS)) <= MOST_HEADERS
