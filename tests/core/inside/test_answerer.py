"""Answers to requests: made once, kept for repeats, and limited."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.inside.answerer import AWAITED_FOR, BURST, KEPT_FOR, MOST_KEPT, RATE, Answerer
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.inside.request import DOCTOR, Answer, Request, parse_body


class Answering:
    """An answerer, and the requests that an answer was made for."""

    def __init__(self, answer: Mapping[str, Any] | None = None) -> None:
        self.made: list[tuple[int, dict[str, Any]]] = []
        self._answer = answer
        self.answerer = Answerer(self._make)

    def _make(self, what: int, content: dict[str, Any]) -> Mapping[str, Any]:
        self.made.append((what, content))
        return {"number": len(self.made)} if self._answer is None else self._answer

    def ask(self, id: int, now: float = 0.0) -> list[bytes]:
        return self.answerer.received(Request(id, DOCTOR, b'{"a":1}'), now)


def content_of(records: list[bytes]) -> dict[str, Any]:
    return parse_body(b"".join(Answer.parse(record).body for record in records))


def test_a_repeated_request_gets_the_same_answer_which_is_made_once() -> None:
    answering = Answering()
    first = answering.ask(7)
    assert content_of(first) == {"number": 1}
    assert answering.ask(7, 1.0) == first
    assert answering.made == [(DOCTOR, {"a": 1})]
    assert content_of(answering.ask(8, 2.0)) == {"number": 2}


def test_an_answer_that_is_not_ready_is_asked_for_again_by_the_repeat() -> None:
    contents = [None, None, {"late": True}]
    answerer = Answerer(lambda what, content: contents.pop(0))
    sent = [answerer.received(Request(7, DOCTOR, b"{}"), now) for now in (0.0, 0.5, 1.5, 3.5)]
    assert sent[:2] == [[], []]
    assert content_of(sent[2]) == {"late": True}
    assert sent[3] == sent[2]


def test_an_answer_that_becomes_ready_is_sent_at_once_and_kept_for_repeats() -> None:
    contents = [None, None, {"late": True}]
    answerer = Answerer(lambda what, content: contents.pop(0))
    request = Request(7, DOCTOR, b"{}")
    assert answerer.received(request, 0.0) == []
    assert answerer.look_again(0.1) == []
    sent = answerer.look_again(0.2)
    assert content_of(sent) == {"late": True}
    assert answerer.look_again(0.3) == []
    assert answerer.received(request, 0.5) == sent


def test_few_requests_wait_for_their_answers_and_none_for_long() -> None:
    ready = False
    answerer = Answerer(lambda what, content: {"id": content["id"]} if ready else None)
    for id in range(MOST_KEPT + 2):
        answerer.received(Request(id, DOCTOR, b'{"id":%d}' % id), float(id))
    ready = True
    sent = [content_of([record])["id"] for record in answerer.look_again(2 + AWAITED_FOR)]
    assert sent == list(range(3, MOST_KEPT + 2))


def test_few_answers_are_kept_and_none_for_long() -> None:
    answering = Answering()
    for id in range(MOST_KEPT + 1):
        answering.ask(id, float(id))
    assert content_of(answering.ask(0, 5.0)) == {"number": MOST_KEPT + 2}, "the oldest was forgotten"
    assert content_of(answering.ask(4, 6.0)) == {"number": 5}
    assert answering.answerer.deadline == 2 + KEPT_FOR
    answering.answerer.handle_timer(5 + KEPT_FOR)
    assert answering.answerer.deadline == NEVER


def test_more_requests_than_the_limit_get_no_answer_repeats_included() -> None:
    answering = Answering()
    for _ in range(BURST):
        answering.ask(7)
    with pytest.raises(BadPacket, match="too many requests"):
        answering.ask(7)
    assert answering.ask(7, 1 / RATE)


def test_a_request_without_a_json_object_gets_no_answer() -> None:
    answering = Answering()
    with pytest.raises(BadPacket, match="bad body"):
        answering.answerer.received(Request(1, DOCTOR, b"[1]"), 0.0)
    assert answering.made == []


def test_an_answer_too_long_to_send_is_refused_in_a_few_words() -> None:
    assert "more than can be sent" in content_of(Answering({"text": "x" * 16000}).ask(7))["refused"]


requests = st.builds(Request, st.integers(0, 9), st.integers(0, 255), st.binary(min_size=1, max_size=8))


@given(st.lists(st.tuples(requests, st.floats(0.0, 5.0)), max_size=60))
def test_whatever_is_asked_the_answers_are_bounded(asked: list[tuple[Request, float]]) -> None:
    answering, now, sent = Answering({"text": "x" * 1500}), 0.0, 0
    for request, pause in asked:
        now += pause
        with suppress(BadPacket):
            sent += len(answering.answerer.received(request, now))
        assert len(answering.answerer._kept) <= MOST_KEPT
    assert sent <= 2 * (BURST + now * RATE)
