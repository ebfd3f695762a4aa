"""Paths of links: when this host's network changes, each peer's route is looked at again, a few in each turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.machine import HandLoop
from vpntun.carriers.fake import FakeEndpoint
from vpntun.core.endpoint import Flow
from vpntun.core.outer_paths import OuterRoute
from vpntun.core.records.pathmtu import BASE
from vpntun.datapath.link_paths import ROUTES_PER_TURN
from vpntun.wire.message import DATA_OVERHEAD

PACKET = ipv4("10.0.0.1", "10.0.0.2", b"hello")
SERVER = bytes((192, 0, 2, 1))
"""The address of all fake endpoints."""
BY_ETH0, BY_ETH1 = OuterRoute(2, b"", b"eth0"), OuterRoute(3, b"", b"eth1")


@pytest.fixture
def two(loop: HandLoop) -> Iterator[TwoEnds]:
    made = TwoEnds(End(ALICE, loop), End(BOB, loop))
    yield made
    made.close()


def test_when_a_peer_is_reached_by_another_route_it_is_told_and_the_path_is_measured_again(two: TwoEnds) -> None:
    network = two.alice.network
    network.routes = {(SERVER, b""): BY_ETH0, (SERVER, b"eth0"): BY_ETH0}
    two.wire.to_right.send_from(b"eth0")
    two.wire.shake_hands()
    for _ in range(2):  # the HELLOs, then the path's length
        two.alice.send(PACKET)
        two.wire.run()
        two.alice.link.handle_deadline()
        two.wire.run()
    assert two.alice.link.records.payload > BASE
    two.alice.engine.network_changed()
    assert two.wire.run() == 0, "a change elsewhere on this host"
    network.routes = {(SERVER, b""): BY_ETH1, (SERVER, b"eth0"): BY_ETH1}
    two.alice.engine.network_changed()
    assert two.alice.link.records.payload == BASE
    assert two.wire.to_right.flow.source == b""
    assert [len(message) for message in two.wire.to_right.sent] == [DATA_OVERHEAD], "a keepalive"


def test_the_routes_to_many_peers_are_looked_at_a_few_in_each_turn(two: TwoEnds, loop: HandLoop) -> None:
    alice, count = two.alice, 2 * ROUTES_PER_TURN + 10
    for number in range(count):
        link = alice.know(bytes([number + 1]) * 32, [f"10.1.{number}.0/24"])
        link.peer.endpoint = FakeEndpoint(f"peer {number}")
    looked: list[int] = []
    alice.network.find = lambda flow: looked.append(1) or None  # type: ignore[method-assign, func-returns-value]
    alice.engine.network_changed()
    alice.engine.network_changed()
    assert len(looked) == ROUTES_PER_TURN - 1, "Bob's endpoint is unknown"
    alice.engine.remove(list(alice.links.values())[-1])
    for _ in range(4):
        loop.poll()
    assert len(looked) == count - 1 + ROUTES_PER_TURN - 1, "the first ones twice, since it has changed twice"


def test_a_bug_in_one_look_at_a_route_does_not_prevent_the_next_ones(two: TwoEnds, loop: HandLoop) -> None:
    looked: list[int] = []

    def find(flow: Flow) -> None:
        looked.append(1)
        if len(looked) == 1:
            raise KeyError("a bug")

    for number in range(2):
        link = two.alice.know(bytes([number + 1]) * 32, [f"10.1.{number}.0/24"])
        link.peer.endpoint = FakeEndpoint(f"peer {number}")
    two.alice.network.find = find  # type: ignore[method-assign]
    with pytest.raises(KeyError):
        two.alice.engine.network_changed()
    loop.poll()
    assert len(looked) == 2
    two.alice.engine.network_changed()
    assert len(looked) == 4
