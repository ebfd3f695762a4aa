"""`vpntun reset`: accepting a peer's next handshake with any timestamp."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE
from tests.datapath.receiving.test_inbound import Town, initiation
from tests.machine import HandLoop, logged
from vpntun.config.peer import PeerSettings
from vpntun.control.reset import forget_timestamp
from vpntun.crypto.keys import format_key


@pytest.fixture
def town(loop: HandLoop) -> Iterator[Town]:
    made = Town(loop)
    made.meet()
    yield made
    made.close()


def test_a_peer_that_is_refused_for_an_old_timestamp_is_answered_after_a_reset(town: Town) -> None:
    day = 86_400
    town.loop.pass_time(1.0)
    town.bob.take(initiation(stamp=day), town.wire.to_left)
    assert len(town.wire.to_left.take()) == 1
    town.loop.pass_time(10.0)
    assert town.drop_of(initiation(stamp=50)) == "old timestamp"
    settings = PeerSettings(ALICE.public, (), name="alice")
    with logged() as lines:
        key = forget_timestamp([settings], lambda public: town.bob.links[town.bob.node.peers[public]], "alice")
    assert key == format_key(ALICE.public)
    assert len([line for line in lines if line.startswith("forgot the last timestamp of ")]) == 1
    town.bob.take(initiation(stamp=50), town.wire.to_left)
    assert len(town.wire.to_left.take()) == 1
    assert town.still_works()
