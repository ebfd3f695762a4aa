"""Seal buffer: which messages are sent by one call, in which order, and that none is lost on a path that blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, End, TwoEnds, ipv4
from tests.machine import HandLoop
from tests.wire.packets import but_for_what_df_frees, payload, tcp_run, tcp_superpacket, udp
from vpntun.core.records.span import LARGEST_SEND
from vpntun.crypto.noise import SessionKeys
from vpntun.crypto.session import Session
from vpntun.link.link import Link
from vpntun.link.seal_buffer import MOST_MESSAGES, SealBuffer
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import LARGEST_RECORD, PARITY, TAKES_ALL, Parity

KEY = b"k" * 32


def new_session(number: int = 1) -> Session:
    return Session(SessionKeys(KEY, KEY), number, number, True, 0.0)


@dataclass
class Batch:
    """The messages of one call."""

    messages: list[bytes]
    first: int
    are_records: bool
    tos: int


@dataclass
class FakeLink:
    """A link that opens the messages which it is to send."""

    batches: list[Batch] = field(default_factory=list)

    def send_batch(
        self, session: Session, messages: memoryview, size: int, first: int, count: int, tos: int, *, are_records: bool
    ) -> None:
        opener, plaintext = new_session(), memoryview(bytearray(65535))
        cut = [messages[at : at + size] for at in range(0, len(messages), size)]
        assert len(cut) == count
        opened = [bytes(plaintext[: opener.open_into(message, plaintext)]) for message in cut]
        self.batches.append(Batch(opened, first, are_records, tos))

    @property
    def sizes(self) -> list[list[int]]:
        return [[len(message) for message in batch.messages] for batch in self.batches]


class Sealing:
    """A seal buffer, and two links."""

    def __init__(self) -> None:
        self.seal_buffer = SealBuffer()
        self.link, self.other = FakeLink(), FakeLink()
        self.session = new_session()

    def add(
        self, *sizes: int, link: FakeLink | None = None, session: Session | None = None, is_record: bool = True
    ) -> list[bool]:
        return [
            self.seal_buffer.add(
                cast(Link, link or self.link), session or self.session, memoryview(bytes(size)), is_record=is_record
            )
            for size in sizes
        ]


@pytest.fixture
def sealing() -> Sealing:
    return Sealing()


def test_messages_of_one_size_are_sent_together_and_a_shorter_one_ends_the_batch(sealing: Sealing) -> None:
    assert sealing.add(1000, 1000, 1000, 400, 400) == [False, False, False, True, False]
    assert sealing.link.sizes == [[1000, 1000, 1000, 400]]
    assert sealing.seal_buffer.pending == 1
    sealing.seal_buffer.flush()
    assert sealing.link.sizes == [[1000, 1000, 1000, 400], [400]]
    assert sealing.seal_buffer.pending == 0


def test_a_longer_message_begins_another_batch(sealing: Sealing) -> None:
    assert sealing.add(400, 400, 1000) == [False, False, True]
    assert sealing.link.sizes == [[400, 400]]


def test_a_batch_holds_no_more_than_the_kernel_accepts(sealing: Sealing) -> None:
    sealing.add(*[100] * (MOST_MESSAGES + 1))
    assert sealing.link.sizes == [[100] * MOST_MESSAGES]
    sealing.seal_buffer.flush()
    sealing.add(*[1440] * 50)
    sealing.seal_buffer.flush()
    for batch in sealing.link.batches:
        assert sum(len(message) + DATA_OVERHEAD for message in batch.messages) <= LARGEST_SEND
    assert sum(map(len, sealing.link.sizes)) == MOST_MESSAGES + 1 + 50


def test_a_message_of_another_link_session_or_kind_begins_another_batch(sealing: Sealing) -> None:
    sealing.add(100, 100)
    sealing.add(100, link=sealing.other)
    assert (sealing.link.sizes, sealing.other.sizes) == ([[100, 100]], [])
    sealing.add(100, session=new_session())
    assert sealing.other.sizes == [[100]]
    sealing.add(100, is_record=False)
    sealing.seal_buffer.flush()
    assert [batch.are_records for batch in sealing.link.batches] == [True, True, False]


def test_a_message_with_another_tos_byte_begins_another_batch(sealing: Sealing) -> None:
    for tos in (0, 2, 2, 3, 0):
        sealing.seal_buffer.add(cast(Link, sealing.link), sealing.session, memoryview(bytes(100)), tos, is_record=True)
    sealing.seal_buffer.flush()
    assert [(batch.tos, len(batch.messages)) for batch in sealing.link.batches] == [(0, 1), (2, 2), (3, 1), (0, 1)]


def test_a_gap_in_the_counters_begins_another_batch(sealing: Sealing) -> None:
    sealing.add(100, 100)
    sealing.session.send_counter += 1  # a REPORT's
    sealing.add(100)
    sealing.seal_buffer.flush()
    assert [(batch.first, len(batch.messages)) for batch in sealing.link.batches] == [(0, 2), (3, 1)]


def test_a_discarded_batch_is_not_sent_and_the_next_one_is(sealing: Sealing) -> None:
    sealing.add(100, 100)
    sealing.seal_buffer.discard()
    sealing.add(200)
    sealing.seal_buffer.flush()
    assert sealing.link.sizes == [[200]]


@given(st.lists(st.tuples(st.integers(1, 1440), st.booleans(), st.sampled_from([0, 0, 0, 1])), max_size=200))
def test_all_messages_are_sent_once_in_the_order_of_their_counters(messages: list[tuple[int, bool, int]]) -> None:
    sealing = Sealing()
    for size, is_record, between in messages:
        sealing.session.send_counter += between
        sealing.add(size, is_record=is_record)
    sealing.seal_buffer.flush()
    assert [size for batch in sealing.link.sizes for size in batch] == [size for size, _, _ in messages]
    counters = [batch.first + index for batch in sealing.link.batches for index in range(len(batch.messages))]
    assert counters == sorted(set(counters))
    for sizes in sealing.link.sizes:
        assert len(set(sizes[:-1])) <= 1
        assert sizes[-1] <= sizes[0]
        assert len(sizes) <= MOST_MESSAGES


# With two ends


class Two(TwoEnds):
    """Alice and Bob, vpntuns on a path of 1,500 bytes; `protected`: Alice sends parities."""

    def __init__(self, loop: HandLoop, *, protected: bool = False) -> None:
        super().__init__(End(ALICE, loop, 1400), End(BOB, loop, 1400))
        self.wire.shake_hands()
        records = self.alice.link.records
        records.payload = 1472
        records.refresh = lambda session, now: False  # type: ignore[method-assign]
        records._largest_taken = LARGEST_RECORD
        records.takes = TAKES_ALL
        records.span.protection.possible = records.span.protection.active = protected
        records.span.path(1472, loop.now)
        records.span.protection.possible = records.span.protection.active = protected
        self.wire.to_right.calls.clear()

    @property
    def calls(self) -> list[list[bytes]]:
        return self.wire.to_right.calls


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    made = Two(loop)
    yield made
    made.close()


def test_a_superpacket_is_sent_with_one_datagram_a_segment_by_as_few_calls_as_possible(two: Two) -> None:
    two.alice.send((tcp_superpacket(4, payload(1348 * 60)[:60000]), 1348))
    segments = -(-60000 // 1348)
    assert sum(map(len, two.calls)) == segments
    assert len(two.calls) == -(-segments // (LARGEST_SEND // 1437))
    assert {len(datagram) for call in two.calls for datagram in call[:-1]} == {1348 + 52 + 5 + 32}
    two.wire.run()
    assert two.bob.device.arrived == tcp_run(4, payload(60000), 1348)


def test_a_single_packet_is_sent_at_once(two: Two) -> None:
    for number in range(3):
        two.alice.send(ipv4("10.0.0.1", "10.0.0.2", b"%d" % number))
        assert len(two.calls) == number + 1


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 20000), st.integers(100, 1348)), min_size=1, max_size=8),
    st.integers(1, 4),
    st.booleans(),
)
def test_on_a_path_that_blocks_packets_are_neither_lost_nor_reordered(
    flows: list[tuple[bool, int, int]], calls: int, protected: bool
) -> None:
    loop = HandLoop()
    two = Two(loop, protected=protected)
    given: list[bytes | tuple[bytes, int]] = []
    expected: list[bytes] = []
    for is_tcp, size, segment in flows:
        if is_tcp:
            given.append((tcp_superpacket(4, payload(size)), segment))
            expected += tcp_run(4, payload(size), segment)
        else:
            given.append(udp(4, payload(size % 1300)))
            expected.append(udp(4, payload(size % 1300)))
    two.wire.carry_blocking(calls, *given)
    arrived = [but_for_what_df_frees(packet) for packet in two.bob.device.arrived]
    assert arrived == [but_for_what_df_frees(packet) for packet in expected]
    assert not two.alice.drops
    assert not two.bob.drops
    two.close()
    loop.close()


@pytest.mark.parametrize("lost", range(16))
def test_a_lost_record_of_a_group_is_restored_by_the_parity(loop: HandLoop, lost: int) -> None:
    two = Two(loop, protected=True)
    two.alice.send((tcp_superpacket(4, payload(1348 * 16)), 1348))
    datagrams = [datagram for call in two.calls for datagram in call]
    assert len(datagrams) == 17
    two.wire.to_right.take()
    two.bob.take_together(datagrams, two.wire.to_left)  # from here on Bob keeps records
    two.bob.device.clear()
    two.calls.clear()
    two.alice.send((tcp_superpacket(4, payload(1348 * 16)), 1348))
    datagrams = [datagram for call in two.calls for datagram in call]
    two.wire.to_right.take()
    two.bob.take_together(datagrams[:lost] + datagrams[lost + 1 :], two.wire.to_left)
    assert sorted(map(but_for_what_df_frees, two.bob.device.arrived)) == sorted(
        map(but_for_what_df_frees, tcp_run(4, payload(1348 * 16), 1348))
    )
    assert two.bob.link.records.restored == 1
    two.bob.take(datagrams[lost], two.wire.to_left)
    assert two.bob.drops == {"replayed": 1}
    two.close()


@pytest.mark.parametrize("segments", [1, 10, 16, 46])
def test_messages_sealed_for_a_size_that_no_longer_fits_reduce_the_size_once(loop: HandLoop, segments: int) -> None:
    two = Two(loop, protected=True)
    records = two.alice.link.records
    records._path.payload = records.payload
    records._path.is_proven = records.dont_fragment = True
    two.wire.to_right.largest = 1300
    two.alice.send((tcp_superpacket(4, payload(1348 * segments)), 1348))
    assert (records.payload, records.path_payload) == (1200, 1200)
    two.close()


def test_a_parity_is_a_record_that_names_its_group(loop: HandLoop) -> None:
    two = Two(loop, protected=True)
    two.alice.send((tcp_superpacket(4, payload(1348 * 16)), 1348))
    session = two.bob.link.peer.keys.current
    assert session is not None
    plaintext = memoryview(bytearray(2000))
    last = memoryview(two.calls[-1][-1])
    record = plaintext[: session.open_into(last, plaintext)]
    assert record[0] == PARITY
    assert Parity.parse(record).count == 16
    two.close()
