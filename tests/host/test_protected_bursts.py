"""Protected bursts from one end to the other: one datagram of a record may be lost, whichever, and nobody notices.

What a parity could do for an attacker is what a piece could do: spoil the record that it claims to belong to.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.host.machine import HandLoop
from tests.host.test_bursts import BIG_AS_PACKETS, Two
from vpntun.core.reassembly import ENDPOINT_SLOTS

DATAGRAMS = 5
"""Of the record that the tests send: four pieces and the parity."""


@pytest.fixture
def two(loop: HandLoop) -> Iterator[Two]:
    """Alice has learned that datagrams are lost on her way to Bob."""
    made = Two(loop)
    made.give(*made.burst())
    assert made.arrived == BIG_AS_PACKETS
    protection = made.alice.link.conversation.span.protection
    protection.learn(100, 1)
    assert protection.decide(room=True)
    yield made
    made.close()


def test_the_datagrams_of_a_protected_record_are_of_one_size_and_one_more_than_its_pieces(two: Two) -> None:
    burst = two.burst()
    assert [len(datagram) for datagram in burst] == [1200] * DATAGRAMS
    assert [datagram[1:4] for datagram in burst] == [bytes((at, DATAGRAMS - 2, 1)) for at in range(DATAGRAMS)]


@pytest.mark.parametrize("lost", range(DATAGRAMS))
def test_a_record_that_loses_one_datagram_comes_all_the_same(two: Two, lost: int) -> None:
    burst = two.burst()
    del burst[lost]
    two.give(*burst)
    assert two.arrived == BIG_AS_PACKETS
    burst = two.burst()
    del burst[lost]
    two.read(*burst)
    assert two.arrived == BIG_AS_PACKETS
    assert not two.bob.drops
    assert two.still_works()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_their_order_and_the_reads_all_but_one_are_enough(two: Two, seed: int) -> None:
    rng = random.Random(seed)
    burst = two.burst()
    rng.shuffle(burst)
    del burst[0]
    while burst:
        count = rng.randint(1, len(burst))
        read, burst = burst[:count], burst[count:]
        two.read(*read)
    assert two.arrived == BIG_AS_PACKETS


def test_two_lost_datagrams_lose_the_record_and_no_other(two: Two) -> None:
    two.give(*two.burst()[2:])
    assert two.arrived == []
    assert two.still_works()


def test_a_read_that_holds_all_of_it_is_joined_and_the_next_is_expected(two: Two) -> None:
    socket = two.read(*two.burst())
    assert two.arrived == BIG_AS_PACKETS
    assert socket.expected == [1200]


def test_a_parity_that_comes_when_its_record_has_come_is_no_loss_and_nothing_to_complain_of(two: Two) -> None:
    for _ in range(3):
        burst = two.burst()
        two.read(*burst[:-1])
        two.give(burst[-1])
    assert two.arrived == BIG_AS_PACKETS * 3
    assert not two.bob.drops
    bob = two.bob.link.conversation
    two.loop.pass_time(0.05)
    two.bob.link.handle_deadline()
    two.loop.pass_time(0.05)
    report = bob._meter.report(two.loop.now)
    assert report is not None
    assert report.datagrams - report.opened == (DATAGRAMS - 2) + 3 * (DATAGRAMS - 1), "the first was not protected"


def test_records_whose_datagrams_come_mixed_are_all_restored(two: Two) -> None:
    bursts = [two.burst()[1:] for _ in range(ENDPOINT_SLOTS)]
    for pieces in zip(*bursts, strict=True):
        two.give(*pieces)
    assert two.arrived == BIG_AS_PACKETS * ENDPOINT_SLOTS
    assert not two.bob.drops


def test_a_restored_record_is_taken_once(two: Two) -> None:
    burst = two.burst()
    two.give(*burst[1:])
    two.give(burst[0])
    two.give(*burst)
    assert two.arrived == BIG_AS_PACKETS
    assert set(two.bob.drops) == {"replayed"}


def test_a_forged_parity_under_the_peers_address_spoils_its_record_and_no_other(two: Two) -> None:
    burst = two.burst()
    forged = burst[-1][:20] + bytes(10) + burst[-1][30:]
    two.give(forged, *burst[:-1])
    assert two.arrived == []
    assert two.bob.drops == {"bad tag": 1}
    assert two.still_works()


def test_a_forged_parity_from_elsewhere_does_not_touch_the_record(two: Two) -> None:
    burst = two.burst()
    two.give(burst[-1][:16] + bytes(1184), path=two.evil)
    two.give(*burst[1:])
    assert two.arrived == BIG_AS_PACKETS
    assert two.endpoint is two.wire.to_left


def test_a_replayed_parity_from_elsewhere_is_refused_and_moves_nothing(two: Two) -> None:
    burst = two.burst()
    two.give(*burst)
    two.give(burst[-1], path=two.evil)
    assert two.bob.drops == {"replayed": 1}
    assert two.endpoint is two.wire.to_left
    assert two.evil.sent == []


def test_a_restored_record_from_a_new_address_moves_the_endpoint_as_any_that_opens(two: Two) -> None:
    two.give(*two.burst()[1:], path=two.evil)
    assert two.arrived == BIG_AS_PACKETS
    assert two.endpoint is two.evil


def test_random_bytes_in_the_place_of_datagrams_harm_nothing_but_their_record(two: Two) -> None:
    rng = random.Random(7)
    for _ in range(300):
        burst = [bytearray(datagram) for datagram in two.burst()]
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(DATAGRAMS)
            position = rng.choice((1, 2, 3, rng.randrange(16, 1200), len(burst[at]) - 1))
            burst[at][position] = rng.randrange(256)
        two.read(*map(bytes, burst))
        assert two.arrived in ([], BIG_AS_PACKETS)
        two.loop.pass_time(0.001)
    assert two.still_works()
