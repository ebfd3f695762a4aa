"""Arrivals: the same messages come out of a socket, whether the kernel coalesces datagrams or not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import cast

import pytest

from tests.machine import HandLoop
from tests.wire.test_burst import datagrams, sealed
from vpntun.carriers.arrivals import (
    SCATTERED_RECORDS,
    SECONDS_BETWEEN_BATCHES,
    SECONDS_OF_A_BATCH,
    SOL_UDP,
    UDP_GRO,
    Receiver,
)
from vpntun.carriers.base import Arrival
from vpntun.carriers.mmsg import AVAILABLE
from vpntun.carriers.sockets import Ancillary
from vpntun.carriers.udp_socket import UDP_SEGMENT, UdpEndpoint
from vpntun.types import SocketAddress

SIZE = 1472

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="recvmmsg's structures are known for 64-bit Linux alone")


class Post:
    """A receiver on loopback, and a socket that sends to it, datagram by datagram."""

    def __init__(self, loop: HandLoop, family: int, host: str) -> None:
        self.loop = loop
        self.inside = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.inside.bind((host, 0))
        self.outside = socket.socket(family, socket.SOCK_DGRAM)
        self.outside.bind((host, 0))
        self.sources: list[SocketAddress] = []
        self.receiver = Receiver(self.inside, loop, self._endpoint, answers_from_where_asked=True)

    def _endpoint(self, address: SocketAddress, local: Ancillary) -> UdpEndpoint:
        self.sources.append(address)
        assert local
        return cast(UdpEndpoint, address)

    def send(self, message: bytes, size: int = SIZE) -> None:
        for datagram in datagrams(message, size):
            self.outside.sendto(datagram, self.inside.getsockname())

    def came(self) -> list[tuple[bytes, int]]:
        return [(bytes(message), datagrams) for message, _, datagrams, _ in self._all()]

    def _all(self) -> Iterator[Arrival]:
        while True:
            before = len(self.sources)
            yield from self.receiver.receive()
            if len(self.sources) == before:
                return

    def close(self) -> None:
        self.inside.close()
        self.outside.close()


@pytest.fixture(params=["127.0.0.1", "::1"])
def post(request: pytest.FixtureRequest, loop: HandLoop) -> Iterator[Post]:
    post = Post(loop, socket.AF_INET6 if ":" in request.param else socket.AF_INET, request.param)
    yield post
    post.close()


def opened_one_by_one(post: Post, size: int = SIZE, records: int = SCATTERED_RECORDS) -> None:
    """Tell the receiver that records opened whose pieces had come one by one, and let its next read be."""
    for _ in range(records):
        post.receiver.expect_pieces(size)
    post.came()


def is_train(post: Post, size: int = SIZE) -> bool:
    """Whether the receiver reads a burst of this size that nothing coalesces as a whole."""
    post.send(sealed(3 * (size - 16), 3), size)
    return [datagrams for _, datagrams in post.came()] == [3]


def test_bursts_whose_pieces_come_one_by_one_are_soon_read_whole(post: Post) -> None:
    post.send(sealed(20 * 1456, 0))
    assert [datagrams for _, datagrams in post.came()] == [1] * 20
    opened_one_by_one(post)
    sent = [sealed(20 * 1456, 1), sealed(20 * 1456 - 700, 2), sealed(50, 3)]
    for message in sent:
        post.send(message)
    assert post.came() == list(zip(sent, (20, 20, 1), strict=True))
    assert set(post.sources) == {post.outside.getsockname()}


@pytest.mark.parametrize("protected", [False, True])
def test_a_burst_that_the_kernel_coalesced_counts_its_pieces_without_the_parity(post: Post, protected: bool) -> None:
    burst = datagrams(sealed(16 + 5 * (SIZE - 16)), SIZE, protected=protected)
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", SIZE))]
    post.receiver.expect_bursts(SIZE)
    post.outside.sendmsg([b"".join(burst)], segment, 0, post.inside.getsockname())
    assert post.came() == [(sealed(16 + 5 * (SIZE - 16)), 5)]


def test_longer_datagrams_than_foreseen_come_whole(post: Post) -> None:
    opened_one_by_one(post)
    for message in (sealed(1600), sealed(65507)):
        post.outside.sendto(message, post.inside.getsockname())
        assert post.came() == [(message, 1)]


def test_a_burst_in_longer_datagrams_than_foreseen_comes_in_pieces(post: Post) -> None:
    opened_one_by_one(post)
    pieces = datagrams(sealed(4000), 1600)
    for datagram in pieces:
        post.outside.sendto(datagram, post.inside.getsockname())
    assert post.came() == [(piece, 1) for piece in pieces]


def test_what_strangers_send_changes_nothing(post: Post) -> None:
    longest = sealed(65507)
    for forged in (b"\4\0\x09" + bytes(14), b"\4\0\1\0" + bytes(1468), b"\4\0\1\0" + bytes(60000)):
        for _ in range(2 * SCATTERED_RECORDS):
            post.outside.sendto(forged, post.inside.getsockname())
            assert post.came() == [(forged, 1)]
        post.outside.sendto(b"\x09", post.inside.getsockname())
        post.outside.sendto(longest, post.inside.getsockname())
        assert post.came() == [(b"\x09", 1), (longest, 1)]
        assert not is_train(post)
    opened_one_by_one(post)
    assert is_train(post)
    for _ in range(2 * SCATTERED_RECORDS):
        post.outside.sendto(b"\4\0\x09" + bytes(14), post.inside.getsockname())
    post.came()
    assert is_train(post)


@pytest.mark.parametrize("size", [17, 100, 1199, 9217, 65507])
def test_nothing_is_laid_out_for_datagrams_that_no_path_has(post: Post, size: int) -> None:
    opened_one_by_one(post, size)
    assert post.inside.getsockopt(SOL_UDP, UDP_GRO) == 1
    post.receiver.expect_bursts(size)
    longest = sealed(65507)
    post.outside.sendto(longest, post.inside.getsockname())
    assert post.came() == [(longest, 1)]


def test_bursts_that_are_read_whole_now_and_then_leave_the_kernel_to_coalesce(post: Post) -> None:
    for number in range(10):
        opened_one_by_one(post, records=SCATTERED_RECORDS - 1)
        if number % 2:
            post.receiver.expect_bursts(SIZE)
        else:
            post.receiver.note_whole_message(4 * SIZE, 4)
    assert not is_train(post)


def test_records_whose_pieces_were_out_of_order_do_not_lay_a_train_out_again(post: Post) -> None:
    opened_one_by_one(post)
    post.loop.clock.now += SECONDS_BETWEEN_BATCHES
    post.loop.poll()
    pieces = datagrams(sealed(4 * 1456), SIZE)
    for piece in pieces[:2]:
        post.outside.sendto(piece, post.inside.getsockname())
    assert post.came() == []  # they wait in their slots
    opened_one_by_one(post)
    for piece in pieces[2:]:
        post.outside.sendto(piece, post.inside.getsockname())
    assert post.came() == [(sealed(4 * 1456), len(pieces))]


def test_peers_whose_datagrams_differ_have_slots_laid_out_ten_times_a_second_at_most(post: Post) -> None:
    opened_one_by_one(post, 1400)
    for _ in range(8):
        opened_one_by_one(post, 1300)
        opened_one_by_one(post, 1400)
        assert is_train(post, 1400)
        post.loop.clock.now += SECONDS_BETWEEN_BATCHES / 8
        post.loop.poll()
    opened_one_by_one(post, 1300)
    assert is_train(post, 1300)


def test_after_a_minute_it_is_tried_whether_something_coalesces_them_after_all(post: Post) -> None:
    opened_one_by_one(post)
    post.loop.clock.now += SECONDS_OF_A_BATCH
    post.loop.poll()
    post.came()
    assert not is_train(post)
    opened_one_by_one(post)
    assert is_train(post)


def test_datagrams_that_waited_and_came_one_by_one_lay_a_train_out(post: Post) -> None:
    for number in range(SCATTERED_RECORDS):
        post.receiver._in_turn = 0
        post.receiver.note_whole_message(SIZE, 1)
        assert not is_train(post), number
    post.receiver._in_turn = 2
    for _ in range(SCATTERED_RECORDS):
        post.receiver.note_whole_message(SIZE, 1)
    assert is_train(post)
