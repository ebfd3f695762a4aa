"""The pieces of one record: in whatever order they come they make it, and a contradiction is refused."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.records.slot import Slot
from vpntun.crypto.replay import ReplayWindow
from vpntun.errors import BadPacket
from vpntun.wire.burst import parity_of
from vpntun.wire.message import HEADER_SIZE, LARGEST


class ASession:
    """All that a slot needs of one."""

    replay = ReplayWindow()


SESSION = ASession()


def slot_for(count: int) -> Slot[ASession]:
    slot: Slot[ASession] = Slot()
    slot.begin(SESSION, 7, "peer", count, 1000.0)
    return slot


def put(slot: Slot[ASession], index: int, count: int, piece: bytes) -> int:
    return slot.put(index, count, memoryview(piece))


def refusal(slot: Slot[ASession], index: int, count: int, piece: bytes) -> str:
    with pytest.raises(BadPacket) as caught:
        put(slot, index, count, piece)
    return caught.value.reason


def record_of(slot: Slot[ASession], length: int) -> bytes:
    """The ciphertext of the whole record; the header in front of it is its keeper's business."""
    return bytes(slot.buffer[HEADER_SIZE:length])


A, B, C = b"a" * 100, b"b" * 100, b"c" * 40


def test_a_fresh_slot_is_free_and_one_that_has_begun_is_its_records() -> None:
    assert Slot[ASession]().session is None
    slot = slot_for(3)
    assert (slot.session, slot.counter, slot.source, slot.began, slot.pieces) == (SESSION, 7, "peer", 1000.0, 0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_piece_to_come_makes_the_record_whole_whichever_it_is(order: tuple[int, ...]) -> None:
    slot = slot_for(3)
    pieces = [A, B, C]
    lengths = [put(slot, index, 3, pieces[index]) for index in order]
    assert lengths == [0, 0, HEADER_SIZE + 240]
    assert record_of(slot, lengths[-1]) == A + B + C
    assert slot.datagram_size == HEADER_SIZE + 100


@given(st.integers(2, 20), st.integers(1, 60), st.integers(0, 2**32))
def test_with_the_parity_any_one_datagram_may_be_missing(count: int, step: int, seed: int) -> None:
    rng = random.Random(seed)
    pieces = [rng.randbytes(step) for _ in range(count)]
    pieces.append(parity_of(pieces, step))
    slot = slot_for(count)
    chosen = rng.sample(range(count + 1), count)
    length = 0
    for index in chosen:
        assert length == 0
        length = put(slot, index, count, pieces[index])
    assert record_of(slot, length) == b"".join(pieces[:count])
    assert slot.pieces == len([index for index in chosen if index < count]), "the parity is no piece"


def test_the_first_of_two_pieces_for_one_place_stays() -> None:
    slot = slot_for(3)
    put(slot, 0, 3, A)
    assert refusal(slot, 0, 3, B) == "repeated fragment"
    put(slot, 1, 3, B)
    assert record_of(slot, put(slot, 2, 3, C)) == A + B + C


def test_a_piece_of_a_record_of_another_length_is_refused() -> None:
    assert refusal(slot_for(3), 0, 4, A) == "bad fragment"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param((0, A), (1, A + b"x"), id="longer than the others"),
        pytest.param((0, A), (1, A[:-1]), id="shorter than the others"),
        pytest.param((0, A), (2, A + b"x"), id="a last one longer than the others"),
        pytest.param((2, A + b"x"), (0, A), id="others shorter than the last one"),
        pytest.param((0, A), (3, A + b"x"), id="a longer parity"),
        pytest.param((3, A), (2, A[:-1]), id="a short last one beside a parity"),
        pytest.param((2, A[:-1]), (3, A), id="a parity beside a short last one"),
        pytest.param((3, A), (0, A + b"x"), id="a piece longer than the parity"),
    ],
)
def test_what_contradicts_the_pieces_before_it_is_refused_and_they_stay(
    first: tuple[int, bytes], second: tuple[int, bytes]
) -> None:
    slot = slot_for(3)
    put(slot, first[0], 3, first[1])
    present = slot.pieces
    assert refusal(slot, second[0], 3, second[1]) == "bad fragment"
    assert slot.pieces == present
    for index, piece in ((0, A), (1, A), (2, A)):  # the right ones still make it, unless the first was a bad one
        if index != first[0] and len(first[1]) == 100:
            length = put(slot, index, 3, piece)
            if length:
                assert record_of(slot, length) == A * 3
                return


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_record_may_be_as_long_as_a_message_and_no_longer(extra: int, order: tuple[int, int]) -> None:
    step = 40_000
    pieces = [bytes(step), bytes(LARGEST - HEADER_SIZE - step + extra)]
    slot = slot_for(2)
    put(slot, order[0], 2, pieces[order[0]])
    if extra:
        assert refusal(slot, order[1], 2, pieces[order[1]]) == "bad fragment"
    else:
        assert put(slot, order[1], 2, pieces[order[1]]) == LARGEST


def test_a_first_piece_that_leaves_no_byte_for_the_last_is_refused() -> None:
    assert refusal(slot_for(2), 0, 2, bytes(LARGEST - HEADER_SIZE)) == "bad fragment"
    assert put(slot_for(2), 0, 2, bytes(LARGEST - HEADER_SIZE - 1)) == 0


def test_a_parity_of_a_record_longer_than_a_message_is_refused() -> None:
    most = (LARGEST - HEADER_SIZE) // 3
    assert put(slot_for(3), 3, 3, bytes(most)) == 0
    assert refusal(slot_for(3), 3, 3, bytes(most + 1)) == "bad fragment"


def test_a_slot_that_serves_another_record_has_forgotten_the_one_before() -> None:
    slot = slot_for(3)
    put(slot, 0, 3, A)
    put(slot, 3, 3, A)
    slot.begin(SESSION, 8, "peer", 2, 1001.0)
    assert put(slot, 0, 2, B + B) == 0
    assert record_of(slot, put(slot, 1, 2, C)) == B + B + C
    assert (slot.counter, slot.pieces) == (8, 2)
