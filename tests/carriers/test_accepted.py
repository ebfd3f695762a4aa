"""The accepted connections: whom a newcomer replaces, how long each may stay, and that the closed leave nothing."""

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

from tests.carriers.house import House, a_peer, frame
from tests.datapath.ends import BOB, CAROL
from tests.machine import HandLoop
from vpntun.carriers.accepted import MOST_STRANGERS, AcceptedConnections
from vpntun.carriers.base import Stream
from vpntun.carriers.fake import FakeEndpoint
from vpntun.carriers.tcp_connection import TcpConnection
from vpntun.core.wireguard.peer import Peer
from vpntun.wire.framing import SharedBuffer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Desk:
    """The registry, and callers with made-up addresses."""

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
        """So many strangers, so many from each address."""
        return [self.admit(f"203.0.113.{number // each}") for number in range(count)]

    def close(self) -> None:
        for connection in list(self.open):
            connection.close()

    def _closed(self, connection: Stream) -> None:
        self.open.discard(connection)
        self.closed.append(connection)


@pytest.fixture
def desk(loop: HandLoop) -> Iterator[Desk]:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 700:
        pytest.skip("this shell allows too few open files")
    desk = Desk(loop)
    yield desk
    desk.close()


def is_open(connection: Stream) -> bool:
    return isinstance(connection, TcpConnection) and connection.fileno() >= 0


def has_closed(connection: TcpConnection) -> bool:
    return not is_open(connection)


# Strangers


def test_a_stranger_that_stays_silent_is_sent_away_after_ten_seconds(house: House) -> None:
    guest = house.guest()
    house.loop.pass_time(9.9)
    assert guest.closed == 0
    house.loop.pass_time(0.2)
    assert guest.closed == 1
    assert guest.sees_the_end()


@pytest.mark.parametrize("trickle", [b"\x00", frame(b"junk" * 10)], ids=["bytes", "whole frames"])
def test_a_trickle_does_not_extend_the_ten_seconds(house: House, trickle: bytes) -> None:
    guest = house.guest()
    stream = iter((frame(b"x" * 200) if len(trickle) == 1 else trickle) * 40)
    for _ in range(19):
        guest.outside.sendall(bytes([next(stream)]) if len(trickle) == 1 else trickle)
        house.loop.pass_time(0.5)
        assert guest.closed == 0
    house.loop.pass_time(0.6)
    assert guest.closed == 1


def test_each_stranger_has_its_own_ten_seconds(desk: Desk) -> None:
    first = desk.admit("192.0.2.1")
    desk.loop.pass_time(4)
    second = desk.admit("192.0.2.1")
    desk.loop.pass_time(4)
    third = desk.admit("192.0.2.2")
    closed_after = []
    for connection in (first, second, third):
        while is_open(connection):
            desk.loop.pass_time(0.5)
        closed_after.append(desk.loop.now)
    assert closed_after == [1010.0, 1014.0, 1018.0]


@pytest.mark.parametrize(
    "hosts",
    [
        ["192.0.2.1"] * 17,
        [f"2001:db8:0:0:{number:x}00::1" for number in range(17)],
        [f"fe80::{number:x}%lo" for number in range(17)],
    ],
    ids=["an IPv4 address", "an IPv6 network", "link-local addresses"],
)
def test_the_seventeenth_stranger_of_one_network_replaces_the_first(desk: Desk, hosts: list[str]) -> None:
    others = [desk.admit("192.0.2.200"), desk.admit("2001:db8:0:1::1")]
    connections = [desk.admit(host) for host in hosts]
    assert desk.closed == connections[:1]
    assert all(map(is_open, [*others, *connections[1:]]))


def test_a_stranger_that_is_replaced_sees_the_end(house: House) -> None:
    guests = [house.guest() for _ in range(17)]
    assert guests[0].sees_the_end()
    assert [guest.closed for guest in guests] == [1] + [0] * 16


def test_with_256_strangers_a_newcomer_replaces_the_oldest_of_the_network_that_has_most(desk: Desk) -> None:
    alone = desk.admit("192.0.2.1")
    few = [desk.admit("192.0.2.2") for _ in range(15)]
    many = [desk.admit("198.51.100.7") for _ in range(16)]
    some = desk.fill(MOST_STRANGERS - 32, each=14)
    assert desk.closed == []
    newcomer = desk.admit("192.0.2.3")
    assert desk.closed == many[:1]
    assert all(map(is_open, [alone, *few, *some, newcomer]))


def test_a_lone_newcomer_outlasts_a_thousand_more_of_the_crowd(desk: Desk) -> None:
    desk.fill()
    newcomer = desk.admit("192.0.2.1")
    for number in range(1000):
        desk.admit(f"203.0.113.{number % 64}")
    assert is_open(newcomer)
    assert len(desk.closed) == 1001


def test_a_stranger_whose_initiation_was_accepted_outlasts_the_silent_ones(desk: Desk) -> None:
    expected = desk.admit_expected("203.0.113.5", a_peer())
    for _ in range(2):
        desk.fill()
    assert is_open(expected)
    crowd = [desk.admit("203.0.113.5") for _ in range(40)]
    assert is_open(expected)
    assert list(map(is_open, crowd)) == [False] * 25 + [True] * 15


def test_a_stranger_whose_initiation_was_accepted_outlasts_a_crowd_with_many_addresses(desk: Desk) -> None:
    expected = desk.admit_expected("192.0.2.1", a_peer())
    for number in range(1000):
        desk.admit(f"10.{number // 256}.{number % 256}.1")
    assert is_open(expected)


def test_among_expected_strangers_of_one_network_the_oldest_goes(desk: Desk) -> None:
    expected = [desk.admit_expected("192.0.2.1", a_peer(bytes([number]) * 32)) for number in range(16)]
    newcomer = desk.admit("192.0.2.1")
    assert desk.closed == expected[:1]
    assert is_open(newcomer)


def test_among_256_expected_strangers_the_oldest_of_the_fullest_network_goes(desk: Desk) -> None:
    peers = [a_peer(bytes([number]) * 32) for number in range(MOST_STRANGERS)]
    alone = desk.admit_expected("192.0.2.1", peers[0])
    expected = [desk.admit_expected(f"203.0.113.{number // 15}", peer) for number, peer in enumerate(peers[1:])]
    newcomer = desk.admit("198.51.100.1")
    assert desk.closed == expected[:1]
    assert all(map(is_open, [alone, newcomer]))


def test_a_peer_is_expected_on_one_connection_the_newest(desk: Desk) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    first, hers = desk.admit_expected("192.0.2.1", bob), desk.admit_expected("192.0.2.1", carol)
    second = desk.admit_expected("192.0.2.2", bob)
    assert desk.closed == [first]
    second.expect(bob)
    hers.expect(bob)
    assert desk.closed == [first]
    assert is_open(hers)


def test_a_peer_that_was_expected_has_its_place_back_when_it_leaves(desk: Desk) -> None:
    bob = a_peer()
    for _ in range(3):
        desk.admit_expected("192.0.2.1", bob).close()
    assert is_open(desk.admit_expected("192.0.2.1", bob))
    assert len(desk.closed) == 3


@pytest.mark.parametrize("how", ["leaves", "authenticates", "runs out of time"])
def test_a_place_is_free_again_when_a_stranger_has_authenticated(desk: Desk, how: str) -> None:
    first = desk.admit("192.0.2.1")
    if how == "runs out of time":
        desk.loop.pass_time(5)
    others = [desk.admit("192.0.2.1") for _ in range(15)]
    if how == "leaves":
        first.close()
    elif how == "authenticates":
        first.belongs_to(a_peer())
    else:
        desk.loop.pass_time(5)
    newcomer = desk.admit("192.0.2.1")
    assert all(map(is_open, [*others, newcomer]))
    desk.admit("192.0.2.1")
    assert not is_open(others[0])


# Peers


def test_a_peer_may_have_two_connections_beside_its_endpoint(desk: Desk) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    hers = [desk.admit_peer(carol) for _ in range(2)]
    endpoint = bob.endpoint = desk.admit_peer(bob)
    connections = [desk.admit_peer(bob) for _ in range(5)]
    assert desk.closed == connections[:3]
    assert all(map(is_open, [*hers, endpoint, *connections[3:]]))


def test_a_peer_whose_endpoint_is_over_udp_may_have_two_connections(desk: Desk) -> None:
    bob = a_peer()
    bob.endpoint = FakeEndpoint("bob")
    connections = [desk.admit_peer(bob) for _ in range(4)]
    assert desk.closed == connections[:2]


def test_a_connection_that_is_not_the_endpoint_ten_seconds_after_it_was_authenticated_is_closed(desk: Desk) -> None:
    bob = a_peer()
    endpoint, beside = desk.admit("192.0.2.1"), desk.admit("192.0.2.1")
    desk.loop.pass_time(5)
    endpoint.belongs_to(bob)
    beside.belongs_to(bob)
    bob.endpoint = endpoint
    desk.loop.pass_time(9.9)
    beside.belongs_to(bob)  # another message, which extends nothing
    assert desk.closed == []
    desk.loop.pass_time(0.2)
    assert desk.closed == [beside]


def test_an_endpoint_may_be_silent_for_long(desk: Desk) -> None:
    bob = a_peer()
    endpoint = bob.endpoint = desk.admit_peer(bob)
    desk.loop.pass_time(3600)
    assert is_open(endpoint)


def test_the_connections_of_a_removed_peer_close_and_no_others(desk: Desk) -> None:
    bob, carol = a_peer(), a_peer(CAROL.public)
    bob.endpoint = desk.admit_peer(bob)
    his, hers, nobodys = desk.admit_peer(bob), desk.admit_peer(carol), desk.admit("192.0.2.1")
    desk.accepted.close_all_of(bob)
    desk.accepted.close_all_of(bob)
    assert desk.closed == [bob.endpoint, his]
    assert all(map(is_open, [hers, nobodys]))


def read(connection: TcpConnection) -> None:
    for _ in connection.receive():
        pass


# What is left


def test_a_thousand_connections_of_one_peer_take_the_memory_of_two(desk: Desk) -> None:
    bob = a_peer()
    desk.admit_peer(bob).close()
    desk.closed.clear()
    tracemalloc.start()
    try:
        for _ in range(1000):
            desk.admit_peer(bob)
        desk.closed.clear()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000


def test_strangers_of_many_networks_leave_no_memory_behind(desk: Desk) -> None:
    tracemalloc.start()
    try:
        for number in range(5000):
            desk.admit(f"10.{number // 256}.{number % 256}.1").close()
        desk.closed.clear()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 200_000


def test_connections_that_are_reset_at_once_leave_no_memory_behind(house: House) -> None:
    def churn(count: int) -> None:
        for _ in range(count):
            with socket.create_connection(("127.0.0.1", house.port)) as outside:
                connection = house.accept()
                assert connection is not None
                house.loop.watch(connection.fileno(), partial(read, connection))
                outside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            house.loop.until(partial(has_closed, connection))

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


def test_a_closed_connection_is_let_go_before_its_ten_seconds_are_over(desk: Desk) -> None:
    gc.disable()
    try:
        gone = []
        for peer in (None, a_peer()):
            connection = desk.admit("192.0.2.1")
            if peer is not None:
                connection.expect(peer)
                connection.belongs_to(peer)
            connection.close()
            gone.append(weakref.ref(connection))
            desk.closed.clear()
            del connection
        assert [each() for each in gone] == [None, None]
    finally:
        gc.enable()


# Whatever comes


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32))
def test_whatever_happens_the_limits_hold_and_nothing_is_left_at_the_end(seed: int) -> None:
    rng = random.Random(seed)
    loop = HandLoop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        desk = Desk(loop)
        peers = [a_peer(key) for key in (BOB.public, CAROL.public)]
        alive: dict[Stream, float] = {}  # until when, if it is not its peer's endpoint then

        def settle() -> None:
            for connection in desk.closed:
                del alive[connection]
            desk.closed.clear()
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
                        connection = desk.admit(host)
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
        desk.close()
        settle()
        assert not alive
        kept = [value for value in vars(desk.accepted).values() if isinstance(value, dict)]
        assert len(kept) == 3
        assert not any(kept)


def test_a_connection_that_the_loop_never_watched_leaves_nothing_behind(desk: Desk) -> None:
    """Watching it failed, for want of memory in the kernel, say; its place must not be lost for ever."""
    unwatched = desk.accepted.admit(socket.socket(), ("203.0.113.1", 1))
    unwatched.close()
    assert desk.closed == [unwatched]
    assert unwatched.fileno() == -1
    desk.fill(15, 15)
    first = desk.admit("203.0.113.0")
    assert first.fileno() >= 0
    assert len(desk.open) == 16
