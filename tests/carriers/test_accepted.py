"""Accepted connections: which one a new one replaces, how long each may stay, and that closed ones leave no state."""

from __future__ import annotations

import gc
import random
import resource
import socket
import struct
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.carriers.tcp_server import TcpServer, a_peer, frame
from tests.datapath.ends import BOB, CAROL
from tests.machine import HandLoop
from vpntun.carriers.accepted import MOST_STRANGERS, AcceptedConnections
from vpntun.carriers.base import Stream
from vpntun.carriers.fake import FakeEndpoint
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.wireguard.peer import Peer
from vpntun.wire.stream_framing import SharedBuffer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Registry:
    """The accepted connections, and callers with made-up addresses."""

    def __init__(self, loop: HandLoop) -> None:
        self.loop = loop
        self.open: set[Stream] = set()
        self.closed: list[Stream] = []
        self.accepted = AcceptedConnections(loop, SharedBuffer(), lambda _: None, self._closed)

    def admit(self, host: str) -> TcpConnection:
        connection = self.accepted.admit(socket.socket(), (host, 1))
        self.loop.watch(connection.fileno(), lambda: None)
        self.open.add(connection)
        return connection

    def admit_expected(self, host: str, peer: Peer) -> TcpConnection:
        connection = self.admit(host)
        connection.expect(peer)
        return connection

    def admit_peer(self, peer: Peer, host: str = "192.0.2.1") -> TcpConnection:
        connection = self.admit(host)
        connection.belongs_to(peer)
        return connection

    def fill(self, count: int = MOST_STRANGERS, each: int = 16) -> list[TcpConnection]:
        """Admit `count` strangers, `each` from every address."""
        return [self.admit(f"203.0.113.{number // each}") for number in range(count)]

    def close(self) -> None:
        for connection in list(self.open):
            connection.close()

    def _closed(self, connection: Stream) -> None:
        self.open.discard(connection)
        self.closed.append(connection)


@pytest.fixture
def registry(loop: HandLoop) -> Iterator[Registry]:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 700:
        pytest.skip("this shell allows too few open files")
    registry = Registry(loop)
    yield registry
    registry.close()


def is_open(connection: Stream) -> bool:
    return isinstance(connection, TcpConnection) and connection.fileno() >= 0


def has_closed(connection: TcpConnection) -> bool:
    return not is_open(connection)


# Strangers


def test_a_stranger_that_stays_silent_is_disconnected_after_ten_seconds(server: TcpServer) -> None:
    client = server.client()
    server.loop.pass_time(9.9)
    assert client.closed == 0
    server.loop.pass_time(0.2)
    assert client.closed == 1
    assert client.sees_close()


@pytest.mark.parametrize("trickle", [b"\x00", frame(b"junk" * 10)], ids=["bytes", "whole frames"])
def test_slowly_arriving_bytes_do_not_extend_the_ten_seconds(server: TcpServer, trickle: bytes) -> None:
    client = server.client()
    stream = iter((frame(b"x" * 200) if len(trickle) == 1 else trickle) * 40)
    for _ in range(19):
        client.outside.sendall(bytes([next(stream)]) if len(trickle) == 1 else trickle)
        server.loop.pass_time(0.5)
        assert client.closed == 0
    server.loop.pass_time(0.6)
    assert client.closed == 1


def test_each_stranger_has_its_own_ten_seconds(registry: Registry) -> None:
    first = registry.admit("192.0.2.1")
    registry.loop.pass_time(4)
    second = registry.admit("192.0.2.1")
    registry.loop.pass_time(4)
    third = registry.admit("192.0.2.2")
    closed_after = []
    for connection in (first, second, third):
        while is_open(connection):
            registry.loop.pass_time(0.5)
        closed_after.append(registry.loop.now)
    assert closed_after == [1010.0, 1014.0, 1018.0]


@pytest.mark.parametrize(
    "hosts",
    [
        ["192.0.2.1"] * 17,
        [f"2001:db8:0:0:{number:x}00::1" for number in range(17)],
        [f"fe80::{number:x}" for number in range(17)],
    ],
    ids=["an IPv4 address", "an IPv6 network", "link-local addresses"],
)
def test_the_seventeenth_stranger_of_one_network_replaces_the_first(registry: Registry, hosts: list[str]) -> None:
    others = [registry.admit("192.0.2.200"), registry.admit("2001:db8:0:1::1")]
    connections = [registry.admit(host) for host in hosts]
    assert registry.closed == connections[:1]
    assert all(map(is_open, [*others, *connections[1:]]))


def test_a_stranger_that_is_replaced_sees_its_connection_close(server: TcpServer) -> None:
    clients = [server.client() for _ in range(17)]
    assert clients[0].sees_close()
    assert [client.closed for client in clients] == [1] + [0] * 16


def test_with_256_strangers_a_new_one_replaces_the_oldest_of_the_network_with_the_most(registry: Registry) -> None:
    alone = registry.admit("192.0.2.1")
    few = [registry.admit("192.0.2.2") for _ in range(15)]
    many = [registry.admit("198.51.100.7") for _ in range(16)]
    some = registry.fill(MOST_STRANGERS - 32, each=14)
    assert registry.closed == []
    newcomer = registry.admit("192.0.2.3")
    assert registry.closed == many[:1]
    assert all(map(is_open, [alone, *few, *some, newcomer]))


def test_a_stranger_alone_in_its_network_outlasts_a_thousand_from_full_networks(registry: Registry) -> None:
    registry.fill()
    newcomer = registry.admit("192.0.2.1")
    for number in range(1000):
        registry.admit(f"203.0.113.{number % 64}")
    assert is_open(newcomer)
    assert len(registry.closed) == 1001


def test_a_stranger_whose_initiation_was_accepted_outlasts_the_silent_ones(registry: Registry) -> None:
    expected = registry.admit_expected("203.0.113.5", a_peer())
    for _ in range(2):
        registry.fill()
    assert is_open(expected)
    crowd = [registry.admit("203.0.113.5") for _ in range(40)]
    assert is_open(expected)
    assert list(map(is_open, crowd)) == [False] * 25 + [True] * 15


def test_a_stranger_whose_initiation_was_accepted_outlasts_a_crowd_with_many_addresses(registry: Registry) -> None:
    expected = registry.admit_expected("192.0.2.1", a_peer())
    for number in range(1000):
        registry.admit(f"10.{number // 256}.{number % 256}.1")
    assert is_open(expected)


def test_of_16_expected_strangers_of_one_network_the_oldest_is_closed(registry: Registry) -> None:
    expected = [registry.admit_expected("192.0.2.1", a_peer(bytes([number]) * 32)) for number in range(16)]
    newcomer = registry.admit("192.0.2.1")
    assert registry.closed == expected[:1]
    assert is_open(newcomer)


def test_of_256_expected_strangers_the_oldest_of_the_fullest_network_is_closed(registry: Registry) -> None:
    peers = [a_peer(bytes([number]) * 32) for number in range(MOST_STRANGERS)]
    alone = registry.admit_expected("192.0.2.1", peers[0])
    expected = [registry.admit_expected(f"203.0.113.{number // 15}", peer) for number, peer in enumerate(peers[1:])]
    newcomer = registry.admit("198.51.100.1")
    assert registry.closed == expected[:1]
    assert all(map(is_open, [alone, newcomer]))


def test_a_peer_is_expected_only_on_its_newest_connection(registry: Registry) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    first, hers = registry.admit_expected("192.0.2.1", bob), registry.admit_expected("192.0.2.1", carol)
    second = registry.admit_expected("192.0.2.2", bob)
    assert registry.closed == [first]
    second.expect(bob)
    hers.expect(bob)
    assert registry.closed == [first]
    assert is_open(hers)


def test_a_closed_connection_of_an_expected_peer_leaves_its_place_free(registry: Registry) -> None:
    bob = a_peer()
    for _ in range(3):
        registry.admit_expected("192.0.2.1", bob).close()
    assert is_open(registry.admit_expected("192.0.2.1", bob))
    assert len(registry.closed) == 3


@pytest.mark.parametrize("how", ["leaves", "authenticates", "runs out of time"])
def test_a_strangers_place_is_free_again_when_it_stops_being_one(registry: Registry, how: str) -> None:
    first = registry.admit("192.0.2.1")
    if how == "runs out of time":
        registry.loop.pass_time(5)
    others = [registry.admit("192.0.2.1") for _ in range(15)]
    if how == "leaves":
        first.close()
    elif how == "authenticates":
        first.belongs_to(a_peer())
    else:
        registry.loop.pass_time(5)
    newcomer = registry.admit("192.0.2.1")
    assert all(map(is_open, [*others, newcomer]))
    registry.admit("192.0.2.1")
    assert not is_open(others[0])


# Peers


def test_a_peer_may_have_two_connections_besides_its_endpoint(registry: Registry) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    hers = [registry.admit_peer(carol) for _ in range(2)]
    endpoint = bob.endpoint = registry.admit_peer(bob)
    connections = [registry.admit_peer(bob) for _ in range(5)]
    assert registry.closed == connections[:3]
    assert all(map(is_open, [*hers, endpoint, *connections[3:]]))


def test_a_peer_whose_endpoint_is_over_udp_may_have_two_connections(registry: Registry) -> None:
    bob = a_peer()
    bob.endpoint = FakeEndpoint("bob")
    connections = [registry.admit_peer(bob) for _ in range(4)]
    assert registry.closed == connections[:2]


def test_a_connection_that_is_not_the_endpoint_ten_seconds_after_it_was_authenticated_is_closed(
    registry: Registry,
) -> None:
    bob = a_peer()
    endpoint, beside = registry.admit("192.0.2.1"), registry.admit("192.0.2.1")
    registry.loop.pass_time(5)
    endpoint.belongs_to(bob)
    beside.belongs_to(bob)
    bob.endpoint = endpoint
    registry.loop.pass_time(9.9)
    beside.belongs_to(bob)  # another message, which extends nothing
    assert registry.closed == []
    registry.loop.pass_time(0.2)
    assert registry.closed == [beside]


def test_an_endpoint_may_be_silent_for_long(registry: Registry) -> None:
    bob = a_peer()
    endpoint = bob.endpoint = registry.admit_peer(bob)
    registry.loop.pass_time(3600)
    assert is_open(endpoint)


def test_the_connections_of_a_removed_peer_close_and_no_others(registry: Registry) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    bob.endpoint = registry.admit_peer(bob)
    his, hers, nobodys = registry.admit_peer(bob), registry.admit_peer(carol), registry.admit("192.0.2.1")
    registry.accepted.close_all_of(bob)
    registry.accepted.close_all_of(bob)
    assert registry.closed == [bob.endpoint, his]
    assert all(map(is_open, [hers, nobodys]))


def read(connection: TcpConnection) -> None:
    for _ in connection.receive():
        pass


# What is left


def test_a_thousand_connections_of_one_peer_take_the_memory_of_two(registry: Registry) -> None:
    bob = a_peer()
    registry.admit_peer(bob).close()
    registry.closed.clear()
    tracemalloc.start()
    try:
        for _ in range(1000):
            registry.admit_peer(bob)
        registry.closed.clear()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000


def test_strangers_of_many_networks_leave_no_memory_behind(registry: Registry) -> None:
    tracemalloc.start()
    try:
        for number in range(5000):
            registry.admit(f"10.{number // 256}.{number % 256}.1").close()
        registry.closed.clear()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000


def test_connections_that_are_reset_at_once_leave_no_memory_behind(server: TcpServer) -> None:
    def churn(count: int) -> None:
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", server.port)) as outside:
                connection = server.accept()
                assert connection is not None
                server.loop.watch(connection.fileno(), partial(read, connection))
                outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            server.loop.until(partial(has_closed, connection))

    churn(10)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        churn(300)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert size < 65536


def test_a_closed_connection_is_freed_before_its_ten_seconds_are_over(registry: Registry) -> None:
    gc.disable()
    try:
        gone = []
        for peer in (None, a_peer()):
            connection = registry.admit("192.0.2.1")
            if peer is not None:
                connection.expect(peer)
                connection.belongs_to(peer)
            connection.close()
            gone.append(weakref.ref(connection))
            registry.closed.clear()
            del connection
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


# Whatever comes


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_after_random_events_the_limits_hold_and_no_state_is_left_at_the_end(seed: int) -> None:
    rng = random.Random(seed)
    loop = HandLoop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        registry = Registry(loop)
        peers = [a_peer(key) for key in (BOB.public, CAROL.public)]
        alive: dict[Stream, float] = {}  # with the end of its probation

        def settle() -> None:
            for connection in registry.closed:
                del alive[connection]
            registry.closed.clear()
            strangers = Counter(each.host for each in alive if each.peer is None)
            assert not strangers or max(strangers.values()) <= 16
            for each, until in alive.items():
                assert is_open(each)
                assert each.is_endpoint or loop.now < until
            for peer in peers:
                beside = [each for each in alive if each.peer is peer and not each.is_endpoint]
                assert len(beside) <= 3  # one may be about to hang up

        for _ in range(60):
            match rng.randrange(6):
                case 0:
                    host = f"192.0.2.{rng.randrange(3)}"
                    for _ in range(rng.randrange(1, 12)):
                        connection = registry.admit(host)
                        alive[connection] = loop.now + 10
                        assert is_open(connection)
                case 1:
                    loop.pass_time(rng.choice([0.1, 1.0, 5.0]))
                case action if alive:
                    picked, peer = rng.choice(list(alive)), rng.choice(peers)
                    assert isinstance(picked, TcpConnection)
                    connection = picked
                    if action == 2:
                        connection.expect(peer)
                    elif action == 3 and connection.peer is None:
                        alive[connection] = loop.now + 10
                        connection.belongs_to(peer)
                    elif action == 4 and isinstance(connection.peer, Peer):
                        former, connection.peer.endpoint = connection.peer.endpoint, connection
                        if isinstance(former, TcpConnection) and former is not connection:
                            former.hang_up_later()
                            alive.update({former: loop.now + 2} if former in alive else {})
                    elif action == 5:
                        connection.close()
            settle()
        registry.close()
        settle()
        assert not alive
        kept = [value for value in vars(registry.accepted).values() if isinstance(value, dict)]
        assert len(kept) == 3
        assert not any(kept)


def test_a_connection_that_the_loop_never_watched_leaves_no_state(registry: Registry) -> None:
    """Watching it may fail, for example if the kernel lacks memory; its place must not be lost for good."""
    unwatched = registry.accepted.admit(socket.socket(), ("203.0.113.1", 1))
    unwatched.close()
    assert registry.closed == [unwatched]
    assert unwatched.fileno() == -1
    registry.fill(15, 15)
    first = registry.admit("203.0.113.0")
    assert first.fileno() >= 0
    assert len(registry.open) == 16
