"""States of links in one line: of one link with times and reasons, of several as counts."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.link.test_link import Two
from tests.link.test_link_states import begin
from tests.machine import HandLoop
from vpntun.link.link_states import INTERVAL
from vpntun.link.link_summary import Counts, describe_link

START = time.mktime((2026, 11, 29, 14, 3, 0, 0, 0, -1))


class Told:
    """Alice's link, as it is described at a wall clock that began at 14:03."""

    def __init__(self, loop: HandLoop) -> None:
        self.two = Two(loop)
        self.link, self._loop, self._began = self.two.alice.link, loop, loop.now

    def text(self, *, is_up: bool) -> str:
        self.link.states.look(self.link)
        return describe_link(self.link, is_up=is_up, clock=lambda: START + self._loop.now - self._began)

    def verify(self) -> None:
        self.link.verify()
        self.two.wire.run()


@pytest.fixture
def told(loop: HandLoop) -> Iterator[Told]:
    made = Told(loop)
    yield made
    made.two.close()


def test_a_link_in_order_names_its_carrier_and_that_data_is_verified(told: Told) -> None:
    begin(told.two)
    told.verify()
    assert told.text(is_up=True) == "connected by UDP since 2026-11-29 14:03 (the peer called by it), data verified"


def test_data_that_is_verified_no_longer_has_the_time_of_its_last_proof(told: Told) -> None:
    begin(told.two)
    told.verify()
    told.two.loop.pass_time(2 * INTERVAL)
    assert told.text(is_up=True).endswith(", data last verified 2026-11-29 14:03")
    told.two.loop.pass_time(150)
    assert told.text(is_up=False).startswith("not connected: no fresh handshake since 2026-11-29 14:06, by UDP")


def test_a_link_without_a_carrier_says_why(told: Told) -> None:
    told.link.peer.endpoint = None
    assert told.text(is_up=False) == "not connected since 2026-11-29 14:03: the peer has not called"


def test_a_handshake_that_proves_nothing_is_not_called_connected(told: Told) -> None:
    begin(told.two)
    assert told.text(is_up=False).startswith("not connected, though by UDP since 2026-11-29 14:03")
    assert told.text(is_up=False).endswith("the handshake is fresh: data not verified")


def test_several_links_are_counted_by_state(loop: HandLoop) -> None:
    two, counts = Two(loop), Counts(links=3, up=2)
    begin(two)
    two.alice.link.verify()
    two.wire.run()
    for link in (two.alice.link, two.bob.link):
        link.states.look(link)
        counts.add(link, 1)
    text = "2 of 3 peers connected; carrier up: 2 UDP; handshake fresh: 2; data verified: 1"
    assert str(counts) == text
    counts.add(two.bob.link, -1)
    assert str(counts).endswith("carrier up: 1 UDP; handshake fresh: 1; data verified: 1")
    two.close()
