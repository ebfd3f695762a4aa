"""recvmmsg(2): datagrams of any length land in their slots, with their lengths, sources and ancillary data."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from vpntun.carriers.ancillary import IP_PKTINFO, IPV6_PKTINFO, IPV6_RECVPKTINFO
from vpntun.carriers.mmsg import ANCILLARY_AT, ANCILLARY_SIZE, AVAILABLE, ManyReader, ancillary_of
from vpntun.wire.datagram_batch import SLOTS, DatagramBatch
from vpntun.wire.message import DATA, DATA_HEADER

SIZE = 1472

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="recvmmsg's structures are known for 64-bit Linux alone")


class Post:
    """A socket that is read by many, and one that sends to it."""

    def __init__(self) -> None:
        self.inside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.inside.bind(("127.0.0.1", 0))
        self.inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.outside = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.outside.bind(("127.0.0.1", 0))
        self.batch = DatagramBatch(SIZE)
        self.reader = ManyReader(self.inside.fileno(), self.batch)

    def send(self, *datagrams: bytes) -> None:
        for each in datagrams:
            self.outside.sendto(each, self.inside.getsockname())

    def came(self) -> list[tuple[bytes, bytes]]:
        """Each datagram, and its origin."""
        arrivals = self.batch.arrivals(lambda origin: (bytes(origin), 0))
        return [(bytes(message), source) for message, _, _, source, _ in arrivals]


@pytest.fixture
def post() -> Iterator[Post]:
    made = Post()
    yield made
    made.inside.close()
    made.outside.close()


def message(number: int, length: int) -> bytes:
    return DATA_HEADER.pack(DATA, 7, number) + os.urandom(length - DATA_HEADER.size)


def test_nothing_waiting_is_nothing_read(post: Post) -> None:
    assert post.reader.read() is False
    assert post.came() == []


def test_datagrams_of_any_length_come_whole_in_their_order(post: Post) -> None:
    sent = [message(number, length) for number, length in enumerate((32, 100, SIZE, 1000, SIZE - 1))]
    post.send(*sent)
    assert post.reader.read() is True
    assert [each for each, _ in post.came()] == sent
    assert post.reader.read() is False


def test_one_that_is_longer_than_a_slot_loses_nothing_and_neither_do_its_neighbours(post: Post) -> None:
    sent = [message(0, SIZE), message(1, 9000), message(2, 32), message(3, 40_000), message(4, SIZE)]
    post.send(*sent)
    post.reader.read()
    assert [each for each, _ in post.came()] == sent


def test_each_has_the_address_of_its_sender(post: Post) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        post.send(message(0, 100))
        other.sendto(message(1, 100), post.inside.getsockname())
        post.reader.read()
        ports = [int.from_bytes(source[2:4], "big") for _, source in post.came()]
        assert ports == [post.outside.getsockname()[1], other.getsockname()[1]]


def test_a_read_takes_no_more_than_there_is_room_for_and_the_next_one_the_rest(post: Post) -> None:
    sent = [message(number, 64) for number in range(SLOTS + 3)]
    post.send(*sent)
    assert post.reader.read() is True
    first = [each for each, _ in post.came()]
    assert len(first) == SLOTS
    assert post.reader.read() is True
    assert first + [each for each, _ in post.came()] == sent


def test_an_icmp_error_of_an_earlier_datagram_is_nothing_read(post: Post) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        nowhere = gone.getsockname()
    post.inside.connect(nowhere)
    post.inside.send(b"x")
    assert post.reader.read() is False
    assert post.came() == []


def test_a_datagram_without_ancillary_data_has_none(post: Post) -> None:
    post.send(message(0, 64))
    post.reader.read()
    assert [ancillary_of(origin) for _, origin in post.came()] == [[]]


@pytest.mark.parametrize(
    ("family", "hosts", "level", "option", "kind", "size"),
    [
        (socket.AF_INET, ["127.0.0.1", "127.0.0.2"], socket.IPPROTO_IP, IP_PKTINFO, IP_PKTINFO, 12),
        (socket.AF_INET6, ["::1"], socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, IPV6_PKTINFO, 20),
    ],
)
def test_each_datagram_has_its_own_ancillary_data(
    family: int, hosts: list[str], level: int, option: int, kind: int, size: int
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as inside, socket.socket(family, socket.SOCK_DGRAM) as outside:
        inside.bind(("", 0))
        inside.setsockopt(level, option, 1)
        for host in hosts:
            outside.sendto(b"x", (host, inside.getsockname()[1]))
        reader = ManyReader(inside.fileno(), DatagramBatch(SIZE))
        reader.read()
        found = [ancillary for *_, ancillary, _ in reader.batch.arrivals(lambda origin: (ancillary_of(origin), 0))]
    assert [(at, what, len(data)) for [(at, what, data)] in found] == [(level, kind, size)] * len(hosts)
    for host, [(_, _, data)] in zip(hosts, found, strict=True):
        assert socket.inet_pton(family, host) in data


@pytest.mark.parametrize("length", [0, 1, 15, ANCILLARY_SIZE + 1, 2**63])
def test_nothing_is_read_beyond_the_ancillary_data(length: int) -> None:
    origin = bytes(ANCILLARY_AT) + struct.pack("=QII", length, 1, 2) + b"x" * (ANCILLARY_SIZE - 16)
    assert ancillary_of(origin) == []
