"""Number of connections of all forwards, which the process's descriptors limit."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from socket import AF_INET, AF_INET6

import pytest

from tests.machine import HandLoop
from vpntun.forwards.connections import (
    MOST_CONNECTIONS,
    MOST_OF_ONE_FORWARD,
    Connections,
    Counters,
    OwnAddresses,
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


def test_own_addresses_are_known_as_long_as_their_sockets_are(made: ExitStack) -> None:
    one, both = (made.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for family in (AF_INET, AF_INET6))
    one.bind(("127.0.0.1", 0))
    own, (host, port) = OwnAddresses(), one.getsockname()
    assert not own.have_sent(both, (f"::ffff:{host}", port, 0, 0))
    own.add(one)
    assert own.have_sent(both, (f"::ffff:{host}", port, 0, 0))
    assert own.have_sent(one, (host, port))
    assert not own.have_sent(one, ("127.0.0.2", port))
    own.remove(one)
    assert not own.have_sent(one, (host, port))
