"""Two ends ask each other: records of one are taken by the other, whatever is lost on the way."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.events import Event, SendRecord
from vpntun.core.inside.requests import Requests
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.inside.request import DOCTOR


def records_of(events: list[Event]) -> list[memoryview]:
    records = []
    for event in events:
        assert isinstance(event, SendRecord)
        assert event.endpoint is None, "it goes to the peer's endpoint"
        records.append(memoryview(event.record))
    return records


def end(text: str) -> Requests:
    return Requests(lambda what, content: {"what": what, "asked": content, "text": text})


def test_a_question_is_answered() -> None:
    alice, bob, answers = end("alice"), end("bob" * 1000), list[Any]()
    for request in records_of(alice.ask(7, DOCTOR, {"n": 1}, answers.append, 0.0)):
        for answer in records_of(bob.received(request, 0.0)):
            assert alice.received(answer, 0.0) == []
    assert answers == [{"what": DOCTOR, "asked": {"n": 1}, "text": "bob" * 1000}]
    assert alice.deadline == NEVER
    assert bob.deadline == 60.0, "the answer is kept for a while"
    assert (bob.handle_timer(60.0), bob.deadline) == ([], NEVER)


def test_who_stops_asking_is_told_that_there_is_no_answer() -> None:
    alice, answers = end("alice"), list[Any]()
    alice.ask(7, DOCTOR, {}, answers.append, 0.0)
    alice.stop()
    assert answers == [None]


@pytest.mark.parametrize("record", [b"\x07", b"\x08", b"\x07" + bytes(2000), b"\x08" + bytes(12)])
def test_nonsense_raises_bad_packet(record: bytes) -> None:
    with pytest.raises(BadPacket):
        end("alice").received(memoryview(record), 0.0)


@given(st.integers(0, 2**32), st.floats(0.0, 0.6), st.integers(0, 14000))
def test_an_answer_is_whole_or_there_is_none_whatever_is_lost(seed: int, loss: float, size: int) -> None:
    rng, alice, bob, answers, now = random.Random(seed), end("a"), end("b" * size), list[Any](), 0.0
    events = alice.ask(7, DOCTOR, {}, answers.append, now)
    while True:
        for request in records_of(events):
            if rng.random() >= loss:
                pieces = records_of(bob.received(request, now))
                rng.shuffle(pieces)
                for piece in pieces:
                    if rng.random() >= loss:
                        alice.received(piece, now)
        if alice.deadline == NEVER:
            break
        now = alice.deadline
        events = alice.handle_timer(now)
    assert now <= 10.0
    assert answers in ([None], [{"what": DOCTOR, "asked": {}, "text": "b" * size}])
    assert loss or answers != [None]
