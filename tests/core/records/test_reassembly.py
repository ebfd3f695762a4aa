"""The careful way: genuine pieces in any order, among lost, repeated and forged ones."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpntun.core.records.reassembly import AGE, ENDPOINT_SLOTS, OTHER_SLOTS, Reassembly
from vpntun.crypto.replay import ReplayWindow
from vpntun.errors import BadPacket
from vpntun.wire.burst import datagrams_for, parity_of
from vpntun.wire.message import DATA, DATA_HEADER, LARGEST

RECEIVER = 0x01020304


class ASession:
    """Accepts a message as a real one does, but for the cryptography."""

    def __init__(self) -> None:
        self.replay = ReplayWindow()

    def opened(self, counter: int) -> None:
        assert self.replay.mark(counter)


def sealed(length: int, counter: int) -> bytes:
    return DATA_HEADER.pack(DATA, RECEIVER, counter) + random.Random(counter).randbytes(length - 16)


def pieces_of(message: bytes, size: int) -> list[memoryview]:
    counter = DATA_HEADER.unpack_from(message)[2]
    step = size - 16
    bodies = [message[at : at + step] for at in range(16, len(message), step)]
    return [piece(counter, index, len(bodies), body) for index, body in enumerate(bodies)]


def protected(message: bytes, size: int) -> list[memoryview]:
    pieces = pieces_of(message, size)
    counter = DATA_HEADER.unpack_from(message)[2]
    return [*pieces, piece(counter, len(pieces), len(pieces), parity_of([each[16:] for each in pieces], size - 16))]


def piece(counter: int, index: int, count: int, body: bytes) -> memoryview:
    word = DATA | index << 8 | (count - 1) << 16
    return memoryview(DATA_HEADER.pack(word, RECEIVER, counter) + body)


class Taker:
    """Feeds one reassembly and keeps what comes out."""

    def __init__(self, session: ASession | None = None) -> None:
        self.session = session or ASession()
        self.reassembly: Reassembly[ASession] = Reassembly()
        self.whole: list[bytes] = []
        self.refused: list[str] = []

    def take(self, datagram: memoryview, source: str = "peer", now: float = 0.0) -> bool:
        try:
            joined = self.reassembly.take(datagram, self.session, source, now, from_endpoint=source == "peer")
        except BadPacket as bad:
            self.refused.append(bad.reason)
            return False
        if joined is not None:
            message, datagrams, size, *_ = joined
            assert datagrams > 0
            assert 16 + (datagrams - 1) * (size - 16) < len(message)
            self.whole.append(bytes(message))
        return joined is not None


@settings(deadline=None)
@given(st.integers(1500, LARGEST), st.integers(1040, 1472), st.integers(0, 2**32))
def test_pieces_in_any_order_with_repeats_make_the_message(length: int, size: int, seed: int) -> None:
    rng = random.Random(seed)
    taker = Taker()
    message = sealed(length, 7)
    pieces = pieces_of(message, size)
    shuffled = rng.sample(pieces, len(pieces))
    for number, each in enumerate(shuffled):
        assert taker.take(each) == (number == len(pieces) - 1)
        if number < len(pieces) - 1:
            taker.take(rng.choice(shuffled[: number + 1]))
    assert taker.whole == [message]


@settings(deadline=None)
@given(st.integers(2, 43), st.integers(40, 1472), st.integers(0, 2**32))
def test_of_a_protected_burst_any_one_datagram_may_be_missing(count: int, size: int, seed: int) -> None:
    rng = random.Random(seed)
    taker = Taker()
    message = sealed(16 + count * (size - 16), 7)
    sent = protected(message, size)
    assert len(sent) == count + 1
    for number, each in enumerate(rng.sample(sent, count)):
        assert taker.take(each) == (number == count - 1)
    assert taker.whole == [message]


def test_a_record_restored_by_its_parity_counts_the_datagrams_that_came_without_it() -> None:
    taker = Taker()
    first, second, *_, parity = protected(sealed(16 + 3 * 100, 7), 116)
    joined = None
    for each in (parity, first, second):
        joined = taker.reassembly.take(each, taker.session, "peer", 0.0, from_endpoint=True)
    assert joined is not None
    assert joined[1:4] == (2, 116, True)


def test_a_parity_behind_its_record_is_not_needed_and_no_replay() -> None:
    taker = Taker()
    *pieces, parity = protected(sealed(16 + 3 * 100, 7), 116)
    for each in pieces:
        taker.take(each)
    taker.session.opened(7)
    assert not taker.take(parity)
    assert taker.refused == []
    assert not taker.take(parity, source="elsewhere")
    assert taker.refused == ["replayed"]
    assert taker.reassembly.waiting(taker.session, 100) == 0


def test_a_record_of_which_only_the_parity_came_is_not_given_up() -> None:
    taker = Taker()
    parity = protected(sealed(16 + 3 * 100, 7), 116)[-1]
    taker.take(parity)
    assert taker.reassembly.given_up(taker.session, AGE) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_parity_of_another_length_than_the_pieces_is_refused(order: tuple[int, ...]) -> None:
    for length in (39, 41):
        taker = Taker()
        came = [piece(7, 0, 3, b"x" * 40), piece(7, 2, 3, b"z" * 40), piece(7, 3, 3, b"p" * length)]
        for at in order:
            taker.take(came[at])
        assert taker.whole == []
        assert set(taker.refused) == {"bad fragment"}


def test_the_number_of_datagrams_and_their_size_come_with_the_message() -> None:
    reassembly: Reassembly[ASession] = Reassembly()
    session = ASession()
    pieces = pieces_of(sealed(5000, 7), 1472)
    results = [reassembly.take(each, session, "peer", 0.0, from_endpoint=True) for each in pieces]
    assert results[:-1] == [None] * (len(pieces) - 1)
    assert results[-1] is not None
    assert results[-1][1:4] == (len(pieces), 1472, False)
    assert len(pieces) == datagrams_for(5000, 1472)


def test_a_counter_that_was_seen_takes_no_slot() -> None:
    taker = Taker()
    taker.session.opened(7)
    taker.take(piece(7, 0, 2, b"x" * 40))
    assert taker.refused == ["replayed"]
    assert taker.reassembly.waiting(taker.session, 100) == 0


def test_what_is_no_piece_or_has_no_legal_place_is_refused() -> None:
    taker = Taker()
    taker.take(memoryview(sealed(100, 1)))
    taker.take(piece(7, 3, 2, b"x" * 40))
    taker.take(piece(7, 0, 2, b""))
    assert taker.refused == ["bad fragment", "bad reserved", "bad size"]


def test_the_first_of_two_that_conflict_stays() -> None:
    taker = Taker()
    message = sealed(2500, 7)
    first, second = pieces_of(message, 1472)
    taker.take(first)
    taker.take(piece(7, 0, 2, b"forged".ljust(len(first) - 16, b"!")))
    taker.take(piece(7, 1, 3, b"forged"))
    taker.take(piece(7, 1, 2, b"too long".ljust(len(first), b"!")))
    taker.take(second)
    assert taker.refused == ["repeated fragment", "bad fragment", "bad fragment"]
    assert taker.whole == [message]


def test_pieces_of_another_source_or_session_do_not_mix() -> None:
    taker = Taker()
    message = sealed(2500, 7)
    first, second = pieces_of(message, 1472)
    taker.take(first)
    assert not taker.take(second, source="elsewhere")
    other = ASession()
    assert taker.reassembly.take(second, other, "peer", 0.0, from_endpoint=True) is None
    assert taker.take(second)
    assert taker.take(first, source="elsewhere")
    assert taker.whole == [message, message]


def test_pieces_that_are_longer_together_than_a_message_are_refused() -> None:
    taker = Taker()
    taker.take(piece(7, 0, 64, bytes(1472)))
    taker.take(piece(8, 1, 2, bytes(65000)))
    taker.take(piece(8, 0, 2, bytes(65000)))
    taker.take(piece(9, 0, 2, bytes(65000)))
    taker.take(piece(9, 1, 2, bytes(1000)))
    assert taker.refused == ["bad fragment"] * 3
    assert not taker.whole


def test_what_is_too_short_for_a_message_when_it_is_complete_is_refused() -> None:
    taker = Taker()
    taker.take(piece(7, 0, 2, b"x"))
    taker.take(piece(7, 1, 2, b"y"))
    assert taker.refused == ["bad size"]


def test_a_slot_serves_records_of_different_lengths_by_turns() -> None:
    taker = Taker()
    messages = [sealed(length, length) for length in (5000, 4000, 60_000, 1500, 3000, 5001)]
    for message in messages:
        for each in reversed(pieces_of(message, 1472)):
            taker.take(each)
    assert taker.whole == messages
    assert memory_of(taker) == LARGEST


def test_when_all_slots_are_taken_the_record_without_a_piece_for_longest_goes() -> None:
    taker = Taker()
    for counter in range(ENDPOINT_SLOTS):
        taker.take(piece(counter, 0, 3, b"x" * 40))
    taker.take(piece(0, 1, 3, b"x" * 40))
    taker.take(piece(30, 0, 2, b"x" * 40))
    assert taker.reassembly.given_up(taker.session, 0.0) == [(1, 1)]
    assert taker.take(piece(0, 2, 3, b"y"))
    assert taker.take(piece(30, 1, 2, b"y"))
    for counter in range(2, ENDPOINT_SLOTS):
        taker.take(piece(counter, 1, 3, b"x" * 40))
        assert taker.take(piece(counter, 2, 3, b"y"))
    assert not taker.refused


@pytest.mark.parametrize("counter", [0, 900, 999, 1001, 20_000, 2**63])
def test_a_new_record_is_never_refused_for_room_whatever_its_counter(counter: int) -> None:
    taker = Taker()
    taker.session.opened(1000)
    for unfinished in range(1100, 1100 + ENDPOINT_SLOTS):
        taker.take(piece(unfinished, 0, 2, b"x" * 40))
    taker.take(piece(counter, 0, 2, b"x" * 40))
    assert taker.take(piece(counter, 1, 2, b"y"))
    assert not taker.refused
    assert taker.reassembly.given_up(taker.session, 0.0) == [(1100, 1)]


def test_after_an_overflow_left_eight_records_unfinished_for_ever_the_next_ones_become_whole() -> None:
    taker = Taker()
    for counter in range(ENDPOINT_SLOTS):
        for each in pieces_of(sealed(5000, counter), 1472)[:-1]:
            taker.take(each)
    messages = [sealed(5000, counter) for counter in range(ENDPOINT_SLOTS, 4 * ENDPOINT_SLOTS)]
    for message in messages:
        for each in pieces_of(message, 1472):
            taker.take(each)
    assert taker.whole == messages
    assert not taker.refused


def test_after_an_overflow_records_whose_pieces_come_mixed_become_whole() -> None:
    taker = Taker()
    for counter in range(ENDPOINT_SLOTS):
        taker.take(pieces_of(sealed(5000, counter), 1472)[0])
    messages = [sealed(5000, counter) for counter in range(ENDPOINT_SLOTS, 2 * ENDPOINT_SLOTS)]
    for pieces in zip(*(pieces_of(message, 1472) for message in messages), strict=True):
        for each in pieces:
            taker.take(each)
    assert taker.whole == messages
    assert taker.reassembly.given_up(taker.session, 0.0) == [(counter, 1) for counter in range(ENDPOINT_SLOTS)]


def test_records_that_will_never_be_finished_do_not_keep_out_those_that_come() -> None:
    taker = Taker()
    for counter in range(400):
        pieces = pieces_of(sealed(5000, counter), 1472)
        for each in pieces if counter % 30 == 29 else pieces[1:]:
            if taker.take(each):
                taker.session.opened(counter)
    assert len(taker.whole) == 400 // 30


def test_other_sources_cannot_take_the_endpoints_slots() -> None:
    taker = Taker()
    message = sealed(60_000, 7)
    pieces = pieces_of(message, 1472)
    for number, each in enumerate(pieces):
        taker.take(each)
        for forged in range(20):
            taker.take(piece(forged, number, 44, b"forged" * 10), source=f"elsewhere {forged}")
    assert taker.whole == [message]


def test_an_unfinished_record_is_given_up_after_a_second() -> None:
    taker = Taker()
    for counter in range(ENDPOINT_SLOTS):
        taker.take(piece(counter, 0, 2, b"x" * 40))
    assert taker.reassembly.given_up(taker.session, 0.99 * AGE) == []
    assert taker.reassembly.given_up(taker.session, AGE) == [(counter, 1) for counter in range(ENDPOINT_SLOTS)]
    assert taker.reassembly.given_up(taker.session, AGE) == []
    taker.take(piece(1000, 0, 2, b"x" * 40), now=AGE)
    assert taker.take(piece(1000, 1, 2, b"y"), now=AGE)


def test_a_record_unfinished_for_a_second_makes_room_before_younger_ones_without_a_piece_for_longer() -> None:
    taker = Taker()
    taker.take(piece(0, 0, 3, b"x" * 40))
    for counter in range(1, ENDPOINT_SLOTS):
        taker.take(piece(counter, 0, 2, b"x" * 40), now=0.5 * AGE)
    taker.take(piece(0, 1, 3, b"x" * 40), now=0.9 * AGE)
    taker.take(piece(1000, 0, 2, b"x" * 40), now=AGE)
    assert taker.reassembly.given_up(taker.session, AGE) == [(0, 2)]
    for counter in (*range(1, ENDPOINT_SLOTS), 1000):
        assert taker.take(piece(counter, 1, 2, b"y"), now=AGE)


def test_what_waits_is_told_up_to_a_counter_and_a_session_can_be_forgotten() -> None:
    taker = Taker()
    for index in range(3):
        taker.take(piece(5, index, 4, b"x" * 40))
    taker.take(piece(6, 0, 4, b"x" * 40))
    assert taker.reassembly.waiting(taker.session, 5) == 3
    assert taker.reassembly.waiting(taker.session, 6) == 4
    assert taker.reassembly.waiting(ASession(), 6) == 0
    taker.reassembly.forget(taker.session)
    assert taker.reassembly.waiting(taker.session, 6) == 0


def test_each_session_is_told_of_its_own_records_given_up() -> None:
    taker = Taker()
    other = ASession()
    for counter in range(ENDPOINT_SLOTS):
        session = other if counter % 2 else taker.session
        taker.reassembly.take(piece(counter, 0, 2, b"x" * 40), session, "peer", 0.0, from_endpoint=True)
    assert [counter for counter, _ in taker.reassembly.given_up(other, AGE)] == [1, 3, 5, 7]
    taker.take(piece(100, 0, 2, b"x"), now=AGE)
    assert [counter for counter, _ in taker.reassembly.given_up(taker.session, AGE)] == [0, 2, 4, 6]
    taker.reassembly.forget(taker.session)
    assert taker.reassembly.given_up(taker.session, 3 * AGE) == []


def memory_of(taker: Taker) -> int:
    slots = (*taker.reassembly._endpoint_slots, *taker.reassembly._other_slots)
    return sum(len(slot.buffer) for slot in slots)


def test_memory_is_taken_at_first_use_and_never_more_than_the_slots() -> None:
    taker = Taker()
    assert memory_of(taker) == 0
    taker.take(piece(5, 0, 64, b"x"))
    assert memory_of(taker) == LARGEST
    for counter in range(1000):
        taker.take(piece(counter, 0, 2, b"x" * 40), source="peer" if counter % 2 else "elsewhere")
    assert memory_of(taker) == (ENDPOINT_SLOTS + OTHER_SLOTS) * LARGEST


def test_memory_is_given_back_at_a_sessions_end() -> None:
    taker = Taker()
    for counter in range(1000):
        taker.take(piece(counter, 0, 2, b"x" * 40), source="peer" if counter % 2 else "elsewhere")
    former, taker.session = taker.session, ASession()
    taker.take(piece(5, 0, 64, b"x"))
    taker.reassembly.forget(former)
    assert memory_of(taker) == LARGEST
    taker.reassembly.forget(taker.session)
    assert memory_of(taker) == 0


@settings(max_examples=200)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.02, 0.3]))
def test_every_record_of_which_all_came_unforged_comes_out_whatever_comes_beside_it(seed: int, loss: float) -> None:
    """Four records at a time, out of order, with loss and repeats, beside forged ones of other counters and sources."""
    rng = random.Random(seed)
    taker = Taker()
    messages = {counter: sealed(rng.randrange(1500, 12_000), counter) for counter in range(1000, 1016)}
    lost: set[int] = set()
    recent: list[int] = []
    flight: list[tuple[int, memoryview]] = []
    taker.session.opened(999)
    for counter, message in messages.items():
        pieces = pieces_of(message, 1472)
        for each in pieces:
            if rng.random() < loss:
                lost.add(counter)
            else:
                flight += [(counter, each)] * rng.choice((1, 1, 1, 2))
        rng.shuffle(flight)
        while flight and (len({each[0] for each in flight}) >= 4 or counter == 1015):
            of, each = flight.pop()
            if rng.random() < 0.3:
                other = rng.choice((1, 2**63, 5000, 900))
                recent = [counter for counter in recent if counter != other] + [other]
                taker.take(piece(other, rng.randrange(3), 4, rng.randbytes(rng.randrange(1, 1472))))
                taker.take(piece(of, rng.randrange(3), 4, rng.randbytes(100)), source="elsewhere")
            if of in recent[:-ENDPOINT_SLOTS]:
                lost.add(of)  # out of the slots' reach
            recent = [counter for counter in recent if counter != of] + [of]
            if taker.take(each):
                assert taker.whole[-1] == messages[of]
                taker.session.opened(of)
    came = {bytes(message[8:16]) for message in taker.whole}
    assert all(messages[counter][8:16] in came for counter in messages if counter not in lost)


@given(st.lists(st.tuples(st.binary(max_size=80), st.booleans(), st.floats(0, 3)), max_size=30))
def test_only_bad_packets_are_raised_whatever_comes(datagrams: list[tuple[bytes, bool, float]]) -> None:
    taker = Taker()
    for body, here, now in datagrams:
        source = "peer" if here else "elsewhere"
        taker.take(memoryview(body), source, now)
        taker.take(piece(len(body) % 5, len(body) % 3, 4, body), source, now)
    with pytest.raises(BadPacket):
        taker.reassembly.take(memoryview(b""), taker.session, "peer", 0.0, from_endpoint=True)
