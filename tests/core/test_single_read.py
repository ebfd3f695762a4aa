"""Single-read hint: descriptors that give one item a turn are read once, others until they are empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, End, EndDevice, TwoEnds, ipv4
from tests.machine import HandLoop
from vpntun.core.single_read import HABIT, SingleReadHint

HERE, THERE = "10.0.0.1", "10.0.0.2"
PACKET = ipv4(HERE, THERE, bytes(64))


def test_a_single_read_is_expected_only_after_several_single_items() -> None:
    single_read = SingleReadHint()
    for turn in range(2, 2 * HABIT + 2, 2):
        assert not single_read.expected(turn)
        single_read.drained(1)
    assert single_read.expected(2 * HABIT + 2)


@pytest.mark.parametrize("brought", [0, 2, 64])
def test_a_turn_with_no_item_or_several_starts_the_count_again(brought: int) -> None:
    single_read = SingleReadHint()
    for _ in range(HABIT - 1):
        single_read.drained(1)
    single_read.drained(brought)
    single_read.drained(1)
    assert not single_read.expected(10)


def test_a_descriptor_that_is_readable_in_the_next_turn_had_more() -> None:
    single_read = SingleReadHint()
    for _ in range(HABIT):
        single_read.drained(1)
    assert single_read.expected(10)
    assert single_read.expected(12)
    assert not single_read.expected(13)
    assert not single_read.expected(20)


class CountedReads(EndDevice):
    """Fake device that counts its reads."""

    reads = 0

    def read_into(self, header: bytearray | memoryview, packet: memoryview) -> int:
        self.reads += 1
        return super().read_into(header, packet)


class Pair(TwoEnds):
    """Two ends and the wire between them; Alice's reads are counted."""

    def __init__(self, loop: HandLoop) -> None:
        self.device = CountedReads()
        super().__init__(End(ALICE, loop, device=self.device), End(BOB, loop))
        self.wire.shake_hands()

    def reads_for(self, packets: int) -> int:
        """Return the number of reads in a turn with so many packets, after a turn without any."""
        self.loop.poll()
        before = self.device.reads
        self.alice.send(*[PACKET] * packets)
        return self.device.reads - before


@pytest.fixture
def pair(loop: HandLoop) -> Iterator[Pair]:
    pair = Pair(loop)
    yield pair
    pair.close()


def test_a_device_that_gives_single_packets_is_read_once_a_turn(pair: Pair) -> None:
    assert [pair.reads_for(1) for _ in range(HABIT + 3)] == [2] * HABIT + [1] * 3


def test_packets_beyond_the_single_read_leave_in_the_next_turn(pair: Pair) -> None:
    for _ in range(HABIT + 1):
        pair.reads_for(1)
    assert pair.reads_for(5) == 1
    pair.wire.run()
    assert len(pair.bob.device.arrived) == HABIT + 2
    pair.loop.poll()
    pair.wire.run()
    assert len(pair.bob.device.arrived) == HABIT + 6
