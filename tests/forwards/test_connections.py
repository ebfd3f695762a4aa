"""Number of connections of all forwards, which the process's descriptors limit."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from tests.machine import HandLoop
from vpntun.forwards.connections import (
    MOST_CONNECTIONS,
    MOST_OF_ONE_FORWARD,
    Connections,
    Counters,
    most_connections,
)


@pytest.fixture
def own_limit() -> Iterator[int]:
    """The limit on descriptors, which the test may lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_all_forwards_share_the_room(loop: HandLoop) -> None:
    connections = Connections(loop, most=2)
    one, other = Counters(), Counters()
    assert connections.admit(one)
    assert connections.admit(other)
    assert not connections.admit(other)
    assert (other.connections, other.total, other.refused) == (1, 1, 1)
    connections.dismiss(one)
    assert connections.admit(other)
    assert (one.connections, one.total, other.connections, other.total) == (0, 1, 2, 2)


def test_no_forward_takes_all_the_room(loop: HandLoop) -> None:
    connections = Connections(loop, most=MOST_OF_ONE_FORWARD + 1)
    greedy = Counters()
    assert all(connections.admit(greedy) for _ in range(MOST_OF_ONE_FORWARD))
    assert not connections.admit(greedy)
    assert connections.admit(Counters())


def test_there_are_descriptors_for_each_connection_and_its_pipes(own_limit: int) -> None:
    for descriptors, connections in ((1024, 128), (256, 1)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, own_limit))
        assert most_connections() == connections
    assert most_connections() <= MOST_CONNECTIONS
