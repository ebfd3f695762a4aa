"""Arrivals: the same messages come out of a socket, whether the kernel coalesces datagrams or not."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Iterator
from typing import cast

import pytest

from tests.host.machine import HandLoop
from tests.wire.test_burst import datagrams, sealed
from vpntun.host.arrivals import PIECES_IN_A_ROW, TRAIN_TIME, Ancillary, Arrival, Receiver
from vpntun.host.mmsg import AVAILABLE
from vpntun.host.resolver import SocketAddress
from vpntun.host.udp import UdpEndpoint

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

    def send(self, message: bytes) -> None:
        for datagram in datagrams(message, SIZE):
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


def one_by_one(post: Post) -> None:
    """Bring the receiver to reading many by one call."""
    for counter in range(PIECES_IN_A_ROW // 20 + 1):
        post.send(sealed(20 * 1456, counter))
        post.came()


def test_bursts_whose_pieces_come_one_by_one_are_soon_read_whole(post: Post) -> None:
    post.send(sealed(20 * 1456, 0))
    assert [datagrams for _, datagrams in post.came()] == [1] * 20
    one_by_one(post)
    sent = [sealed(20 * 1456, 1), sealed(20 * 1456 - 700, 2), sealed(50, 3)]
    for message in sent:
        post.send(message)
    assert post.came() == list(zip(sent, (20, 20, 1), strict=True))
    assert set(post.sources) == {post.outside.getsockname()}


def test_room_is_laid_out_for_whole_pieces_and_not_for_the_last_of_a_burst(post: Post) -> None:
    short = 3 * 1456 + 60
    for counter in range(PIECES_IN_A_ROW // 4):
        post.send(sealed(short, counter))
        post.came()
    sent = [sealed(short, 100), sealed(20 * 1456, 101), sealed(20 * 1456, 102)]
    post.send(sent[0])
    assert b"".join(message[:16] for message, _ in post.came()).count(sent[0][4:16]) == 4
    for message in sent[1:]:
        post.send(message)
    assert post.came() == [(message, 20) for message in sent[1:]]


def test_a_longer_datagram_than_foreseen_is_nothing_and_the_next_of_its_kind_comes_whole(post: Post) -> None:
    one_by_one(post)
    long = sealed(1600)
    post.outside.sendto(long, post.inside.getsockname())
    assert post.came() == [(b"", 1)]
    post.outside.sendto(long, post.inside.getsockname())
    assert post.came() == [(long, 1)]


def test_pieces_that_were_longer_than_foreseen_are_no_burst(post: Post) -> None:
    one_by_one(post)
    for datagram in datagrams(sealed(4000), 1600):
        post.outside.sendto(datagram, post.inside.getsockname())
    assert [datagrams for _, datagrams in post.came()] == [1, 1, 1]


def test_after_a_minute_it_is_tried_whether_something_coalesces_them_after_all(post: Post) -> None:
    one_by_one(post)
    post.loop.clock.now += TRAIN_TIME
    post.loop.poll()
    post.came()
    post.send(sealed(3 * 1456, 3))
    assert [datagrams for _, datagrams in post.came()] == [1, 1, 1]


def test_a_stranger_cannot_make_it_lay_out_room_by_the_length_of_what_it_sends(post: Post) -> None:
    forged = b"\4\0\1\0" + bytes(60000)
    for _ in range(PIECES_IN_A_ROW + 5):
        post.outside.sendto(forged, post.inside.getsockname())
        assert post.came() == [(forged, 1)]
    tracemalloc.start()
    post.outside.sendto(forged, post.inside.getsockname())
    assert post.came() == [(forged, 1)]
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
