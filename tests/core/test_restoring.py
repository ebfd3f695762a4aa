"""Protected bursts taken in the careful way: any one datagram may be lost, and a forged one spoils its own record."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_reassembly import ASession, Taker, memory_of, piece, pieces_of, sealed
from tests.wire.test_burst import datagrams
from vpntun.core.reassembly import AGE, ENDPOINT_SLOTS, OTHER_SLOTS, Reassembly
from vpntun.wire.message import LARGEST

SIZE = 1472
STEP = SIZE - 16


def protected(message: bytes, size: int = SIZE) -> list[memoryview]:
    return [memoryview(each) for each in datagrams(message, size, protected=True)]


def late(taker: Taker) -> list[int]:
    return taker.reassembly.late(taker.session)


lengths = st.integers(1500, 60_000)
sizes = st.integers(1040, 1499)
seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(lengths, sizes, seeds)
def test_any_datagram_but_one_in_any_order_with_repeats_make_the_message(length: int, size: int, seed: int) -> None:
    rng = random.Random(seed)
    taker = Taker()
    message = sealed(length, 7)
    whole = protected(message, size)
    came = rng.sample(whole, len(whole) - 1)
    for number, each in enumerate(came):
        assert taker.take(each) == (number == len(came) - 1)
        if number < len(came) - 1:
            taker.take(rng.choice(came[: number + 1]))
    assert taker.whole == [message]
    assert set(taker.refused) <= {"repeated fragment"}
    assert taker.reassembly.waiting(taker.session, 7) == 0


@pytest.mark.parametrize("length", [16 + 3 * STEP + extra for extra in (-3, -2, -1, 0, 1)])
@pytest.mark.parametrize("missing", range(5))
def test_each_datagram_can_be_restored_wherever_the_message_ends(length: int, missing: int) -> None:
    taker = Taker()
    message = sealed(length, 7)
    whole = protected(message)
    for each in whole[:missing] + whole[missing + 1 :]:
        taker.take(each)
    assert taker.whole == [message]


@settings(deadline=None)
@given(lengths, sizes, seeds)
def test_of_all_but_two_nothing_comes_out(length: int, size: int, seed: int) -> None:
    taker = Taker()
    whole = protected(sealed(length, 7), size)
    came = random.Random(seed).sample(whole, len(whole) - 2)
    assert not any(taker.take(each) for each in came)
    assert taker.reassembly.waiting(taker.session, 7) == len(came)
    assert taker.reassembly.given_up(taker.session, AGE) == ([(7, len(came))] if came else [])
    assert not taker.refused


@pytest.mark.parametrize("missing", range(5))
def test_the_number_of_datagrams_that_made_it_comes_with_the_message(missing: int) -> None:
    reassembly: Reassembly[ASession] = Reassembly()
    session = ASession()
    message = sealed(5000, 7)
    whole = protected(message)
    came = whole[:missing] + whole[missing + 1 :]
    results = [reassembly.take(each, session, "peer", 0.0, from_endpoint=True) for each in came]
    assert results == [None, None, None, (memoryview(message), 4, 1472)]


def test_a_parity_that_is_not_needed_is_dropped_and_told_of_once() -> None:
    taker = Taker()
    *pieces, parity = protected(sealed(5000, 7))
    for each in pieces:
        taker.take(each)
    taker.session.opened(7)
    assert late(taker) == []
    assert not taker.take(parity)
    assert late(taker) == [7]
    assert late(taker) == []
    assert not taker.refused
    assert taker.reassembly.waiting(taker.session, 7) == 0


def test_a_parity_from_elsewhere_or_a_piece_of_a_record_that_was_opened_is_a_replay() -> None:
    taker = Taker()
    *pieces, parity = protected(sealed(5000, 7))
    taker.session.opened(7)
    assert not taker.take(parity, source="elsewhere")
    assert not any(taker.take(each) for each in pieces)
    assert taker.refused == ["replayed"] * (1 + len(pieces))
    assert late(taker) == []


def test_a_piece_that_was_restored_and_comes_after_all_is_a_replay() -> None:
    taker = Taker()
    first, *others = protected(sealed(5000, 7))
    for each in others:
        taker.take(each)
    taker.session.opened(7)
    taker.take(first)
    assert taker.refused == ["replayed"]
    assert late(taker) == []


def test_each_session_is_told_of_its_own_late_parities_until_it_is_forgotten() -> None:
    taker = Taker()
    other = ASession()
    for counter in (3, 4):
        taker.session.opened(counter)
        other.opened(counter)
    parities = [protected(sealed(5000, counter))[-1] for counter in (3, 4)]
    taker.take(parities[0])
    taker.reassembly.take(parities[1], other, "peer", 0.0, from_endpoint=True)
    assert taker.reassembly.late(other) == [4]
    assert late(taker) == [3]
    taker.take(parities[1])
    taker.reassembly.forget(taker.session)
    assert late(taker) == []


def test_late_parities_that_nobody_asks_for_take_bounded_memory() -> None:
    taker = Taker()
    taker.session.opened(7)
    parity = protected(sealed(5000, 7))[-1]
    for _ in range(2000):
        taker.take(parity)
    assert late(taker) == [7] * 1024


def test_protected_pieces_and_others_of_one_counter_do_not_mix() -> None:
    message = sealed(4000, 7)
    for first, second in (
        (pieces_of(message, SIZE), protected(message)),
        (protected(message), pieces_of(message, SIZE)),
    ):
        taker = Taker()
        taker.take(first[0])
        for each in second:
            taker.take(each)
        assert taker.refused == ["bad fragment"] * len(second)
        for each in first[1:]:
            taker.take(each)
        assert taker.whole == [message]


def test_a_slot_serves_protected_records_and_others_by_turns() -> None:
    taker = Taker()
    messages = [sealed(length, length) for length in (5000, 4000, 60_000, 1500, 3000, 5001)]
    for number, message in enumerate(messages):
        for each in pieces_of(message, SIZE) if number % 2 else protected(message)[1:]:
            taker.take(each)
    assert taker.whole == messages
    assert memory_of(taker) == LARGEST


def test_pieces_of_another_size_are_refused_the_last_and_the_parity_among_them() -> None:
    taker = Taker()
    message = sealed(4000, 7)
    whole = protected(message)
    taker.take(whole[1])
    for each in (*protected(message, SIZE - 1), whole[2][:-1], memoryview(bytes(whole[3]) + b"x")):
        taker.take(each)
    assert taker.refused == ["bad fragment"] + ["repeated fragment"] + ["bad fragment"] * 4
    taker.take(whole[3])
    taker.take(whole[2])
    assert taker.whole == [message]


def test_what_would_be_longer_than_a_message_with_all_its_pieces_is_refused() -> None:
    taker = Taker()
    taker.take(piece(7, 0, 63, bytes(STEP), protected=True))
    taker.take(piece(8, 2, 2, bytes(32_760), protected=True))
    taker.take(piece(9, 1, 2, bytes(65_000), protected=True))
    assert taker.refused == ["bad fragment"] * 3
    for index in (2, 0):
        taker.take(piece(10, index, 2, bytes(32_758) + b"\x03", protected=True))
    assert taker.refused[3:] == ["bad size"]  # it has room, but the piece that is missing is all zeros
    taker.take(piece(11, 0, 2, bytes(32_759), protected=True))
    assert taker.take(piece(11, 1, 2, bytes(32_758) + b"\x03", protected=True))
    assert [len(message) for message in taker.whole] == [16 + 2 * 32_759 - 3]


@pytest.mark.parametrize("filling", [0, 1, STEP + 2, 0x0100 * (STEP // 0x0100 + 1), 65535])
@pytest.mark.parametrize("missing", range(4))
def test_a_filling_that_can_not_be_is_refused_and_the_slot_is_free_again(filling: int, missing: int) -> None:
    taker = Taker()
    bodies = [bytes(STEP), b"x" * STEP, bytes(STEP - 2) + filling.to_bytes(2, "big")]
    parity = bytes(one ^ two ^ three for one, two, three in zip(*bodies, strict=True))
    whole = [piece(7, index, 3, body, protected=True) for index, body in enumerate((*bodies, parity))]
    for each in whole[:missing] + whole[missing + 1 :]:
        assert not taker.take(each)
    assert taker.refused == ["bad size"]
    assert taker.reassembly.waiting(taker.session, 7) == 0
    for each in protected(sealed(5000, 8))[1:]:
        taker.take(each)
    assert taker.whole == [sealed(5000, 8)]
    assert memory_of(taker) == LARGEST


def test_all_datagrams_of_a_record_whose_filling_can_not_be_raise_nothing_else() -> None:
    taker = Taker()
    for _ in range(3):
        for index in range(4):
            taker.take(piece(7, index, 3, bytes(40), protected=True))
    assert taker.refused == ["bad size"] * 4


def test_what_is_too_short_for_a_message_when_it_is_restored_is_refused() -> None:
    taker = Taker()
    taker.take(piece(7, 0, 2, bytes(4), protected=True))
    taker.take(piece(7, 2, 2, b"\0\0\0\2", protected=True))
    assert taker.refused == ["bad size"]


def test_a_forged_parity_spoils_its_own_record_and_no_other() -> None:
    taker = Taker()
    spoilt, message = sealed(5000, 7), sealed(5000, 8)
    taker.take(piece(7, 4, 4, b"forged".ljust(STEP, b"\0"), protected=True))
    for one, other in zip(protected(spoilt)[:-1], protected(message)[1:], strict=True):
        taker.take(other)
        taker.take(one)
    assert message in taker.whole
    assert spoilt not in taker.whole


def test_a_forged_parity_of_another_size_or_behind_the_genuine_one_spoils_nothing() -> None:
    taker = Taker()
    message = sealed(5000, 7)
    first, *others, parity = protected(message)
    taker.take(first)
    taker.take(piece(7, 4, 4, b"forged", protected=True))
    taker.take(parity)
    taker.take(piece(7, 4, 4, bytes(STEP), protected=True))
    for each in others[:-1]:
        taker.take(each)
    assert taker.refused == ["bad fragment", "repeated fragment"]
    assert taker.whole == [message]


def test_the_parity_of_another_source_restores_nothing() -> None:
    taker = Taker()
    message = sealed(5000, 7)
    *pieces, parity = protected(message)
    for each in pieces[1:]:
        taker.take(each)
    assert not taker.take(parity, source="elsewhere")
    assert taker.take(parity)
    assert taker.whole == [message]


def test_forged_parities_take_no_more_memory_than_the_slots() -> None:
    taker = Taker()
    for counter in range(1000):
        forged = piece(counter, 44, 44, bytes(STEP), protected=True)
        taker.take(forged, source="peer" if counter % 2 else "elsewhere")
    assert memory_of(taker) == (ENDPOINT_SLOTS + OTHER_SLOTS) * LARGEST
    taker.reassembly.forget(taker.session)
    assert memory_of(taker) == 0


@settings(deadline=None, max_examples=150)
@given(seeds, st.sampled_from([0.02, 0.2]))
def test_records_that_lost_at_most_one_datagram_come_out_among_others_and_no_other_does(seed: int, loss: float) -> None:
    """Protected and not, three at a time, out of order."""
    rng = random.Random(seed)
    taker = Taker()
    expected: set[bytes] = set()
    for begin in range(0, 30, 3):
        flight: list[memoryview] = []
        for counter in range(begin, begin + 3):
            message = sealed(rng.randrange(1500, 12_000), counter)
            with_parity = rng.random() < 0.7
            whole = protected(message) if with_parity else pieces_of(message, SIZE)
            came = [each for each in whole if rng.random() >= loss]
            if len(came) >= len(whole) - with_parity:
                expected.add(message)
            flight += came
        rng.shuffle(flight)
        for each in flight:
            if taker.take(each):
                taker.session.opened(int.from_bytes(taker.whole[-1][8:16], "little"))
    assert set(taker.whole) == expected
    assert len(taker.whole) == len(expected)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from((2, 3, 4, 63, 64)),
            st.integers(0, 3),
            st.sampled_from((b"", b"\2", b"\0\2", bytes(20), b"\xff" * 20, b"\0\3" * 10, bytes(1100))),
            st.booleans(),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_only_bad_packets_are_raised_whatever_comes_protected(
    forged: list[tuple[int, int, int, bytes, bool, bool]],
) -> None:
    taker = Taker()
    taker.session.opened(3)
    for index, count, counter, body, with_parity, here in forged:
        taker.take(piece(counter, index, count, body, protected=with_parity), "peer" if here else "elsewhere")
    assert all(32 <= len(message) <= LARGEST for message in taker.whole)
