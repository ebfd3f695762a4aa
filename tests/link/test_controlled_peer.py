"""Outcome of sending messages: what it tells about the path, and what is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.machine import HandLoop
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Outcome
from vpntun.core.events import SendRecord
from vpntun.core.records.pathmtu import BASE
from vpntun.wire.message import DATA_OVERHEAD, HEADER_SIZE
from vpntun.wire.record import Hello, Probe

HERE, THERE = "10.0.0.1", "10.0.0.2"


@pytest.fixture
def two(loop: HandLoop) -> Iterator[TwoEnds]:
    """Alice and Bob with a session, and no message under way."""
    made = TwoEnds(End(ALICE, loop), End(BOB, loop))
    made.wire.shake_hands()
    yield made
    made.close()


@pytest.mark.parametrize("how", ["data", "a keepalive", "a record alone", "held data"])
def test_the_search_for_the_longest_datagram_begins_again_when_messages_leave_from_another_address(
    two: TwoEnds, loop: HandLoop, how: str
) -> None:
    link, to_bob = two.alice.link, two.wire.to_right
    for _ in range(2):  # the HELLOs, then the path's length
        two.alice.send(ipv4(HERE, THERE, b"x"))
        two.wire.run()
        link.handle_deadline()
        two.wire.run()
    found = link.records.payload
    assert found > BASE
    to_bob.is_rerouted = how != "held data"
    if how == "data":
        two.alice.send(ipv4(HERE, THERE, b"x"))
    elif how == "held data":
        two.alice.engine.held_sent(to_bob, Outcome.REROUTED, 3, 1000)
    elif how == "a keepalive":
        link.act(link.peer.keepalive(to_bob, loop.now))
    else:
        link.act([SendRecord(Hello(seen_yours=False, takes=0).pack())])
    assert link.records.payload == BASE
    two.wire.run()
    link.handle_deadline()
    two.wire.run()
    assert BASE < link.records.payload <= found


def test_held_datagrams_that_are_refused_in_the_end_are_counted(two: TwoEnds) -> None:
    for outcome in (Outcome.TOO_BIG, Outcome.UNDELIVERABLE, Outcome.UNDELIVERABLE):
        two.alice.engine.held_sent(two.wire.to_right, outcome, 3, 9000)
    two.alice.engine.held_sent(FakeEndpoint("somebody else"), Outcome.UNDELIVERABLE, 3, 9000)
    assert two.alice.drops == {"too big for the path": 3, "undeliverable": 6}


@pytest.fixture
def met(two: TwoEnds) -> TwoEnds:
    """Alice and Bob, who know each other's HELLO."""
    two.alice.send(ipv4(HERE, THERE, b"x"))
    two.wire.run()
    return two


def probe_by_burst(endpoint: FakeEndpoint) -> SendRecord:
    return SendRecord(Probe(1, BASE + 1 - DATA_OVERHEAD).pack(), endpoint, size_matters=True, datagram=BASE)


def test_a_probe_that_tests_bursts_leaves_in_two_datagrams_and_is_echoed(met: TwoEnds) -> None:
    to_bob, to_alice = met.wire.to_right, met.wire.to_left
    met.alice.link.act([probe_by_burst(to_bob)])
    assert [len(each) for each in to_bob.calls[-1]] == [BASE, HEADER_SIZE + 1]
    answers = len(to_alice.urgent)
    met.wire.run()
    assert len(to_alice.urgent) == answers + 1
    assert not met.bob.drops


def test_a_refusal_of_such_a_probe_is_one_of_its_longest_datagram(met: TwoEnds) -> None:
    met.wire.to_right.largest = BASE - 1
    met.alice.link.act([probe_by_burst(met.wire.to_right)])
    assert not met.alice.link.records.dont_fragment
    assert met.alice.link.records.path_payload is None
