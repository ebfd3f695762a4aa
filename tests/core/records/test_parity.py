"""Parities: one lost record of a group is restored, two are not, and nothing that a peer makes up does harm."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.records.room import room_of
from tests.core.records.two import TAKES, Two
from vpntun.core.records.parity import KEPT, KEPT_FOR, ParityMaker, Restorer
from vpntun.crypto.replay import LIMIT, ReplayWindow
from vpntun.errors import BadPacket
from vpntun.wire.message import DATA_OVERHEAD
from vpntun.wire.record import (
    BUNDLE,
    LARGEST_RECORD,
    MOST_IN_GROUP,
    PARITY,
    TAKES_PARITY,
    Parity,
    append,
    begin_bundle,
)

groups = st.lists(st.binary(min_size=1, max_size=200), min_size=2, max_size=MOST_IN_GROUP)
counters = st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1))


def parity_of(group: list[bytes], first: int = 0) -> Parity:
    """What a sender makes of a group."""
    maker = ParityMaker()
    made = [maker.add(first + index, memoryview(record), len(group)) for index, record in enumerate(group)]
    assert not any(made[:-1])
    return Parity.parse(made[-1])


class Receiver:
    """Who keeps records, and marks their counters as a session does."""

    def __init__(self) -> None:
        self.window = ReplayWindow()
        self.restorer = Restorer()
        self.restorer.restore(Parity(0, 2, 0, b"x"), self.window, 0.0)  # from the first on records are kept

    def take(self, counter: int, record: bytes) -> None:
        assert self.window.mark(counter)
        self.restorer.keep(counter, memoryview(record))

    def restore(self, parity: Parity) -> tuple[int, bytes] | None:
        return self.restorer.restore(parity, self.window, 1.0)


# The sender


@given(groups, st.integers(0, 2**32))
def test_a_parity_is_no_longer_than_the_longest_record_and_its_own_fields(group: list[bytes], first: int) -> None:
    parity = parity_of(group, first)
    assert (parity.first, parity.count) == (first, len(group))
    assert len(parity.sum) == max(map(len, group))


def test_a_gap_of_counters_begins_another_group() -> None:
    maker = ParityMaker()
    records = [bytes([BUNDLE, number]) for number in range(5)]
    assert maker.add(10, memoryview(records[0]), 3) == b""
    for counter, record in zip((12, 13), records[1:3], strict=True):  # 11 was another's
        assert maker.add(counter, memoryview(record), 3) == b""
    parity = Parity.parse(maker.add(14, memoryview(records[3]), 3))
    assert (parity.first, parity.count) == (12, 3)
    assert maker.add(15, memoryview(records[4]), 3) == b"", "the next group is its own"


# The receiver


@given(groups, st.data(), st.integers(0, 2**32))
def test_whichever_one_record_of_a_group_is_lost_is_restored_as_it_was(
    group: list[bytes], data: st.DataObject, first: int
) -> None:
    lost = data.draw(st.integers(0, len(group) - 1))
    receiver = Receiver()
    for index in data.draw(st.permutations(range(len(group)))):
        if index != lost:
            receiver.take(first + index, group[index])
    assert receiver.restore(parity_of(group, first)) == (first + lost, group[lost])


@given(groups, st.data())
def test_of_two_lost_records_none_is_restored_and_of_a_whole_group_there_is_nothing_to(
    group: list[bytes], data: st.DataObject
) -> None:
    lost = data.draw(st.sets(st.integers(0, len(group) - 1), min_size=2))
    receiver, whole = Receiver(), Receiver()
    for index, record in enumerate(group):
        whole.take(index, record)
        if index not in lost:
            receiver.take(index, record)
    assert receiver.restore(parity_of(group)) is None
    assert whole.restore(parity_of(group)) is None


def test_a_record_that_was_opened_but_is_not_kept_is_not_taken_for_lost() -> None:
    receiver = Receiver()
    group = [b"\x02one", b"\x02two"]
    receiver.take(0, group[0])
    receiver.window.mark(1)  # it came in several datagrams
    assert receiver.restore(parity_of(group)) is None


def test_records_older_than_the_last_sixty_four_are_not_kept() -> None:
    receiver = Receiver()
    group = [b"\x02one", b"\x02two"]
    receiver.take(0, group[0])
    for counter in range(2, KEPT):
        receiver.take(counter, b"\x02other")
    assert receiver.restore(parity_of(group)) == (1, group[1])
    receiver.take(KEPT, b"\x02in its place")
    assert receiver.restore(parity_of(group)) is None


# A hostile peer


@given(
    st.lists(st.tuples(counters, st.binary(min_size=1, max_size=40)), max_size=20),
    st.lists(
        st.tuples(counters, st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=60)), min_size=1, max_size=10
    ),
)
def test_a_parity_of_any_fields_is_refused_or_restores_what_fits_its_own_sum(
    records: list[tuple[int, bytes]], parities: list[tuple[int, int, int, bytes]]
) -> None:
    receiver = Receiver()
    for counter, record in records:
        if not receiver.window.seen(counter):
            receiver.take(counter, record)
    for first, count, lengths, total in parities:
        try:
            parity = Parity.parse(Parity(first, count, lengths, total).pack())
        except BadPacket:
            assert not (2 <= count <= MOST_IN_GROUP and total)
            continue
        found = receiver.restore(parity)
        if found is not None:
            counter, plaintext = found
            assert first <= counter < first + count
            assert counter < LIMIT
            assert not receiver.window.seen(counter)
            assert 0 < len(plaintext) <= len(total)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_as_a_parity_raise_bad_packet_alone_and_restore_nothing_of_nothing(rest: bytes) -> None:
    try:
        parity = Parity.parse(bytes([PARITY]) + rest)
    except BadPacket:
        return
    assert Receiver().restore(parity) is None


@pytest.mark.parametrize("lengths", [0, 4, 65535])
def test_a_length_that_the_sum_does_not_have_restores_nothing(lengths: int) -> None:
    receiver = Receiver()
    receiver.take(0, b"\x02")
    assert receiver.restore(Parity(0, 2, lengths ^ 1, b"\x02ab")) is None


def test_what_stands_behind_the_restored_length_has_to_be_zeros() -> None:
    receiver = Receiver()
    receiver.take(0, b"\x02")
    assert receiver.restore(Parity(0, 2, 2 ^ 1, b"\x00ab")) is None
    assert receiver.restore(Parity(0, 2, 2 ^ 1, b"\x00a\x00")) == (1, b"\x02a")


def test_what_a_parity_claims_allocates_nothing() -> None:
    receiver = Receiver()
    tracemalloc.start()
    for first in range(0, 2**63, 2**55):
        receiver.restore(Parity(first, MOST_IN_GROUP, LARGEST_RECORD, b"x"))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20_000


# In a conversation


def bundle_of(packet: bytes) -> bytes:
    record = bytearray(100)
    return bytes(record[: append(record, begin_bundle(record), packet, 0)])


class Met(Two):
    """Two that take parities; `give` hands the left one's records to the right one, but for those that are lost."""

    def __init__(self) -> None:
        super().__init__(takes=(TAKES | TAKES_PARITY, TAKES | TAKES_PARITY), mtu=1100)
        self.confirm()
        self.run(0.5)

    def give(self, counter: int, record: bytes) -> None:
        self.right.session.replay.mark(counter)
        self.right.records.opened(self.right.session, counter, 1, self.now, memoryview(record))

    def restore(self, parity: bytes) -> bytes | None:
        return self.right.records.restore(self.right.session, memoryview(parity), self.now)

    def kept(self) -> int:
        return sum(counter >= 0 for counter, _ in self.right.records._restorer._kept)


GROUP = [bundle_of(bytes([0x45]) + bytes([number]) * 19) for number in range(4)]


@pytest.fixture
def met() -> Met:
    return Met()


def test_nothing_is_kept_before_the_first_parity_nor_two_seconds_after_the_last(met: Met) -> None:
    met.give(100, GROUP[0])
    assert met.kept() == 0
    assert met.restore(parity_of(GROUP[:2], 50).pack()) is None
    met.give(101, GROUP[1])
    assert met.kept() == 1
    met.now += KEPT_FOR
    met.give(102, GROUP[2])
    assert met.kept() == 1
    assert met.restore(parity_of(GROUP[:2], 50).pack()) is None
    met.give(103, GROUP[3])
    assert met.kept() == 2


def test_a_restored_record_is_refused_as_a_replay_when_it_comes_after_all(met: Met) -> None:
    met.restore(parity_of(GROUP, 50).pack())
    for index in (0, 1, 3):
        met.give(100 + index, GROUP[index])
    parity = parity_of(GROUP, 100).pack()
    assert met.restore(parity) == GROUP[2]
    assert met.right.session.replay.seen(102)
    assert not met.right.session.replay.mark(102)
    assert met.restore(parity) is None, "nor is it restored twice"
    assert met.right.records.restored == 1


def test_a_restored_record_counts_as_opened_and_its_datagram_as_lost(met: Met) -> None:
    met.restore(parity_of(GROUP, 50).pack())
    for index in (0, 1, 3):
        met.give(100 + index, GROUP[index])
    meter = met.right.records._receive_stats
    opened, datagrams = meter._opened_above, meter._datagrams_above
    met.restore(parity_of(GROUP, 100).pack())
    assert (meter._opened_above, meter._datagrams_above) == (opened + 1, datagrams)


def test_a_restored_record_that_is_no_bundle_is_not_taken(met: Met) -> None:
    met.restore(parity_of(GROUP, 50).pack())
    met.give(100, GROUP[0])
    assert met.restore(parity_of([GROUP[0], b"\x03" + GROUP[1][1:]], 100).pack()) is None
    assert not met.right.session.replay.seen(101)


def test_records_of_a_former_session_restore_nothing_in_the_next(met: Met) -> None:
    met.restore(parity_of(GROUP, 50).pack())
    met.give(100, GROUP[0])
    former = met.right.session
    met.confirm(2)
    assert met.restore(parity_of(GROUP[:2], 100).pack()) is None
    assert met.right.records.restore(former, memoryview(parity_of(GROUP[:2], 100).pack()), met.now) is None
    assert met.kept() == 0


def test_a_parity_follows_a_group_while_protection_is_active_and_in_the_session_in_use_alone(met: Met) -> None:
    records, session = met.left.records, met.left.session
    record = memoryview(GROUP[0])

    def parities(count: int) -> list[bytes]:
        made = []
        for _ in range(count):
            session.send_counter += 1
            made.append(records.parity_of(session, session.send_counter - 1, record))
            session.send_counter += bool(made[-1])
        return [each for each in made if each]

    records.span.protection.active = False
    assert parities(40) == []
    records.span.protection.possible = records.span.protection.active = True
    group = records.span.protection.group
    assert [Parity.parse(each).count for each in parities(3 * group)] == [group] * 3
    met.confirm(2)
    assert parities(3 * group) == []


def test_a_record_and_its_parity_fit_the_same_datagram(met: Met) -> None:
    records = met.left.records
    records.span.protection.possible = records.span.protection.active = True
    records.span.path(records.payload, met.now)
    record = bytes(room_of(records, met.left.session, met.now))
    assert len(parity_of([record, record]).pack()) + DATA_OVERHEAD <= records.payload
