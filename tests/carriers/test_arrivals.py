"""Receiver of datagrams: it returns the same messages whether the kernel coalesces datagrams or not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import cast

import pytest

from tests.carriers.own_network import run_in_own_network
from tests.machine import HandLoop
from tests.wire.test_burst import datagrams, sealed
from vpntun.carriers.ancillary import SOL_UDP, UDP_GRO, UDP_SEGMENT, Ancillary
from vpntun.carriers.arrivals import (
    SCATTERED_RECORDS,
    SECONDS_BETWEEN_BATCHES,
    SECONDS_OF_A_BATCH,
    Receiver,
)
from vpntun.carriers.base import Arrival
from vpntun.carriers.mmsg import AVAILABLE
from vpntun.carriers.udp_socket import UdpEndpoint
from vpntun.types import SocketAddress

SIZE = 1472

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="recvmmsg's structures are known for 64-bit Linux alone")


class Loopback:
    """A receiver on the loopback, and a socket that sends datagrams to it one by one."""

    def __init__(self, loop: HandLoop, family: int, host: str) -> None:
        self.loop = loop
        self.inside = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.inside.bind((host, 0))
        self.outside = socket.socket(family, socket.SOCK_DGRAM)
        self.outside.bind((host, 0))
        self.sources: list[SocketAddress] = []
        self.locals: list[Ancillary] = []
        self.receiver = Receiver(self.inside, loop, self._endpoint, answers_from_where_asked=True)

    def _endpoint(self, address: SocketAddress, local: Ancillary) -> UdpEndpoint:
        self.sources.append(address)
        self.locals.append(local)
        assert local
        return cast(UdpEndpoint, address)

    def send(self, message: bytes, size: int = SIZE) -> None:
        for datagram in datagrams(message, size):
            self.outside.sendto(datagram, self.inside.getsockname())

    def send_with(self, tos: int) -> None:
        """Give what is sent from now on this TOS byte or traffic class."""
        if self.outside.family == socket.AF_INET:
            self.outside.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        else:
            self.outside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, tos)

    def received(self) -> list[tuple[bytes, int]]:
        return [(bytes(message), datagrams) for message, _, datagrams, _, _ in self._all()]

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
def loopback(request: pytest.FixtureRequest, loop: HandLoop) -> Iterator[Loopback]:
    loopback = Loopback(loop, socket.AF_INET6 if ":" in request.param else socket.AF_INET, request.param)
    yield loopback
    loopback.close()


def opened_one_by_one(loopback: Loopback, size: int = SIZE, records: int = SCATTERED_RECORDS) -> None:
    """Tell the receiver that records opened whose pieces had arrived one by one; then read once."""
    for _ in range(records):
        loopback.receiver.expect_pieces(size)
    loopback.received()


def reads_batches(loopback: Loopback, size: int = SIZE) -> bool:
    """Return whether the receiver joins a burst in datagrams of this size that arrive uncoalesced."""
    loopback.send(sealed(3 * (size - 16), 3), size)
    return [datagrams for _, datagrams in loopback.received()] == [3]


def test_bursts_whose_pieces_arrive_one_by_one_are_joined_after_16_records(loopback: Loopback) -> None:
    loopback.send(sealed(20 * 1456, 0))
    assert [datagrams for _, datagrams in loopback.received()] == [1] * 20
    opened_one_by_one(loopback)
    sent = [sealed(20 * 1456, 1), sealed(20 * 1456 - 700, 2), sealed(50, 3)]
    for message in sent:
        loopback.send(message)
    assert loopback.received() == list(zip(sent, (20, 20, 1), strict=True))
    assert set(loopback.sources) == {loopback.outside.getsockname()}


@pytest.mark.parametrize("protected", [False, True])
def test_a_burst_that_the_kernel_coalesced_counts_its_pieces_without_the_parity(
    loopback: Loopback, protected: bool
) -> None:
    burst = datagrams(sealed(16 + 5 * (SIZE - 16)), SIZE, protected=protected)
    segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", SIZE))]
    loopback.receiver.expect_bursts(SIZE)
    loopback.outside.sendmsg([b"".join(burst)], segment, 0, loopback.inside.getsockname())
    assert loopback.received() == [(sealed(16 + 5 * (SIZE - 16)), 5)]


def test_datagrams_longer_than_expected_are_received_whole(loopback: Loopback) -> None:
    opened_one_by_one(loopback)
    for message in (sealed(1600), sealed(65507)):
        loopback.outside.sendto(message, loopback.inside.getsockname())
        assert loopback.received() == [(message, 1)]


def test_a_burst_in_longer_datagrams_than_expected_is_received_in_pieces(loopback: Loopback) -> None:
    opened_one_by_one(loopback)
    pieces = datagrams(sealed(4000), 1600)
    for datagram in pieces:
        loopback.outside.sendto(datagram, loopback.inside.getsockname())
    assert loopback.received() == [(piece, 1) for piece in pieces]


def test_strangers_datagrams_do_not_change_how_the_socket_is_read(loopback: Loopback) -> None:
    longest = sealed(65507)
    for forged in (b"\4\0\x09" + bytes(14), b"\4\0\1\0" + bytes(1468), b"\4\0\1\0" + bytes(60000)):
        for _ in range(2 * SCATTERED_RECORDS):
            loopback.outside.sendto(forged, loopback.inside.getsockname())
            assert loopback.received() == [(forged, 1)]
        loopback.outside.sendto(b"\x09", loopback.inside.getsockname())
        loopback.outside.sendto(longest, loopback.inside.getsockname())
        assert loopback.received() == [(b"\x09", 1), (longest, 1)]
        assert not reads_batches(loopback)
    opened_one_by_one(loopback)
    assert reads_batches(loopback)
    for _ in range(2 * SCATTERED_RECORDS):
        loopback.outside.sendto(b"\4\0\x09" + bytes(14), loopback.inside.getsockname())
    loopback.received()
    assert reads_batches(loopback)


@pytest.mark.parametrize("size", [17, 100, 1199, 9217, 65507])
def test_no_buffers_are_laid_out_for_sizes_that_no_path_has(loopback: Loopback, size: int) -> None:
    opened_one_by_one(loopback, size)
    assert loopback.inside.getsockopt(SOL_UDP, UDP_GRO) == 1
    loopback.receiver.expect_bursts(size)
    longest = sealed(65507)
    loopback.outside.sendto(longest, loopback.inside.getsockname())
    assert loopback.received() == [(longest, 1)]


def test_while_the_kernel_coalesces_some_bursts_no_batch_is_begun(loopback: Loopback) -> None:
    for number in range(10):
        opened_one_by_one(loopback, records=SCATTERED_RECORDS - 1)
        if number % 2:
            loopback.receiver.expect_bursts(SIZE)
        else:
            loopback.receiver.note_whole_message(4 * SIZE, 4)
    assert not reads_batches(loopback)


def test_records_whose_pieces_were_out_of_order_do_not_replace_the_batch(loopback: Loopback) -> None:
    opened_one_by_one(loopback)
    loopback.loop.clock.now += SECONDS_BETWEEN_BATCHES
    loopback.loop.poll()
    pieces = datagrams(sealed(4 * 1456), SIZE)
    for piece in pieces[:2]:
        loopback.outside.sendto(piece, loopback.inside.getsockname())
    assert loopback.received() == []  # the pieces wait in their slots
    opened_one_by_one(loopback)
    for piece in pieces[2:]:
        loopback.outside.sendto(piece, loopback.inside.getsockname())
    assert loopback.received() == [(sealed(4 * 1456), len(pieces))]


def test_for_peers_with_different_sizes_a_batch_is_laid_out_at_most_ten_times_a_second(loopback: Loopback) -> None:
    opened_one_by_one(loopback, 1400)
    for _ in range(8):
        opened_one_by_one(loopback, 1300)
        opened_one_by_one(loopback, 1400)
        assert reads_batches(loopback, 1400)
        loopback.loop.clock.now += SECONDS_BETWEEN_BATCHES / 8
        loopback.loop.poll()
    opened_one_by_one(loopback, 1300)
    assert reads_batches(loopback, 1300)


def test_after_a_minute_the_kernel_is_tried_again(loopback: Loopback) -> None:
    opened_one_by_one(loopback)
    loopback.loop.clock.now += SECONDS_OF_A_BATCH
    loopback.loop.poll()
    loopback.received()
    assert not reads_batches(loopback)
    opened_one_by_one(loopback)
    assert reads_batches(loopback)


def test_waiting_datagrams_that_are_read_one_by_one_begin_a_batch(loopback: Loopback) -> None:
    for number in range(SCATTERED_RECORDS):
        loopback.receiver._in_turn = 0
        loopback.receiver.note_whole_message(SIZE, 1)
        assert not reads_batches(loopback), number
    loopback.receiver._in_turn = 2
    for _ in range(SCATTERED_RECORDS):
        loopback.receiver.note_whole_message(SIZE, 1)
    assert reads_batches(loopback)


@pytest.mark.parametrize("in_batches", [False, True])
def test_each_datagram_is_answered_from_the_address_that_it_was_sent_to(loop: HandLoop, in_batches: bool) -> None:
    loopback = Loopback(loop, socket.AF_INET, "0.0.0.0")
    if in_batches:
        opened_one_by_one(loopback)
        loopback.locals.clear()
    asked = ["127.0.0.2", "127.0.0.3", "127.0.0.3", "127.0.0.2"]
    for host in asked:
        loopback.outside.sendto(sealed(50, 3), (host, loopback.inside.getsockname()[1]))
    assert len(loopback.received()) == 4
    answered_from = [socket.inet_ntoa(data[4:8]) for [(_, _, data)] in loopback.locals]
    assert answered_from == ["127.0.0.2", "127.0.0.3", "127.0.0.2"], "asked once for each change of address"
    loopback.close()


@pytest.mark.parametrize("in_batches", [False, True])
def test_the_ecn_field_of_each_datagram_is_read(loopback: Loopback, in_batches: bool) -> None:
    if in_batches:
        opened_one_by_one(loopback)
        loopback.received()
    fields = [0, 2, 2, 3, 1, 0]
    for ecn in fields:
        loopback.send_with(0xB8 | ecn)
        loopback.send(sealed(50, 3))
    assert [ecn for *_, ecn in loopback._all()] == fields


def test_a_burst_is_joined_in_place_only_if_no_router_has_marked_a_part_of_it(loopback: Loopback) -> None:
    opened_one_by_one(loopback)
    pieces = datagrams(sealed(4000, 3), SIZE)
    for marked, expected in ((None, [(len(pieces), 2)]), (1, [(1, 2), (1, 3), (1, 2)])):
        for number, piece in enumerate(pieces):
            loopback.send_with(3 if number == marked else 2)
            loopback.outside.sendto(piece, loopback.inside.getsockname())
        assert [(count, ecn) for _, _, count, _, ecn in loopback._all()] == expected


LINK_LOCAL = """
from vpntun.carriers.arrivals import SCATTERED_RECORDS
from vpntun.carriers.udp_socket import UdpSocket
from vpntun.runtime.resolver import lookup

ip("address", "add", "fe80::1/64", "dev", "lo", "nodad")
local = ["ip", "-6", "route", "show", "table", "local", "fe80::1"]  # the kernel adds it later, from a work queue
loop.until(lambda: subprocess.run(local, check=True, capture_output=True).stdout, "for the address's local route")
udp = UdpSocket(socket.AF_INET6, 4242, loop, answers_from_where_asked=True)
peer = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
zone = socket.if_nametoindex("lo")
peer.bind(("fe80::1", 4243, 0, zone))

def read():
    got = []
    peer.sendto(b"x", ("fe80::1", 4242, 0, zone))
    loop.until(lambda: got.extend(source for _, _, _, source, _ in udp.receive()) or got)
    return got[0]

alone = read()
for _ in range(SCATTERED_RECORDS):
    udp.expect_pieces(1472)
in_a_batch = read()
[(_, configured)] = lookup("fe80::1%lo", 4243, socket.AI_NUMERICHOST)
assert alone == in_a_batch == udp.endpoint(configured), (alone, in_a_batch, configured)
assert {each.where for each in (alone, in_a_batch)} == {"[fe80::1%lo]:4243"}
print("done")
"""


def test_a_link_local_sender_is_one_endpoint_however_it_is_read() -> None:
    run_in_own_network(LINK_LOCAL)
