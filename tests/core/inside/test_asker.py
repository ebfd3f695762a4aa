"""Requests that are sent: repeated while pieces are missing, given up in time, and not confused by hostile answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.inside.asker import GIVE_UP_AFTER, MOST_PENDING, Asker
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.inside.request import DOCTOR, Answer, Request, answers_of, pack_body

REQUEST = Request(7, DOCTOR, b"{}")
LONG = {"text": "x" * 2500}


class Asking:
    """An asker with one request under way, and the answers that it has passed on."""

    def __init__(self, request: Request = REQUEST, now: float = 0.0) -> None:
        self.asker = Asker()
        self.answers: list[dict[str, Any] | None] = []
        self.sent = self.asker.ask(request, self.answers.append, now)


def test_an_answer_in_one_piece_ends_the_request() -> None:
    asking = Asking()
    assert asking.sent == [REQUEST.pack()]
    (answer,) = answers_of(7, b'{"fine":true}')
    asking.asker.received(answer)
    asking.asker.received(answer)  # a late copy
    assert asking.answers == [{"fine": True}]
    assert asking.asker.deadline == NEVER


def test_pieces_may_come_in_any_order_and_from_different_repeats() -> None:
    asking = Asking()
    first, second, third = answers_of(7, pack_body(LONG))
    for piece in (third, first, first, third):
        asking.asker.received(piece)
    assert asking.answers == []
    assert asking.asker.handle_timer(0.5) == [REQUEST.pack()], "a piece is missing, so it is asked for again"
    asking.asker.received(second)
    assert asking.answers == [LONG]


def test_a_request_is_sent_six_times_within_ten_seconds_and_then_given_up() -> None:
    asking, now, times = Asking(now=100.0), 100.0, [100.0]
    while not asking.answers:
        now = asking.asker.deadline
        times += [now] * len(asking.asker.handle_timer(now))
    assert times == [100.0, 100.5, 101.5, 103.5, 105.5, 107.5]
    assert (now, asking.answers, asking.asker.deadline) == (100.0 + GIVE_UP_AFTER, [None], NEVER)


def test_an_answer_to_another_request_is_ignored() -> None:
    asking = Asking()
    asking.asker.received(Answer(8, 0, 1, b"{}"))
    assert asking.answers == []


@pytest.mark.parametrize(
    ("before", "bad"),
    [([Answer(7, 0, 2, b"{")], Answer(7, 0, 1, b"{}")), ([], Answer(7, 0, 1, b"not JSON"))],
    ids=["contradictory", "no JSON"],
)
def test_a_bad_answer_is_dropped_and_a_good_one_still_counts(before: list[Answer], bad: Answer) -> None:
    asking = Asking()
    for piece in before:
        asking.asker.received(piece)
    with pytest.raises(BadPacket):
        asking.asker.received(bad)
    assert asking.answers == []
    asking.asker.received(Answer(7, 0, 1, b"{}"))
    assert asking.answers == [{}]


def test_several_requests_wait_side_by_side_up_to_a_limit() -> None:
    asker, answers = Asker(), list[Any]()
    for id in range(MOST_PENDING):
        assert not asker.is_full
        asker.ask(Request(id, DOCTOR, b"{}"), answers.append, id * 0.1)
    assert asker.is_full
    asker.received(Answer(2, 0, 1, b'{"id":2}'))
    assert (answers, asker.is_full) == ([{"id": 2}], False)
    asker.stop()
    assert answers == [{"id": 2}, None, None, None]


pieces = st.builds(
    Answer, st.sampled_from([7, 8]), st.integers(0, 3), st.integers(1, 4), st.sampled_from([b"{", b"}", b"{}", b"x"])
)


@given(st.lists(pieces | st.floats(0.01, 3.0), max_size=40))
def test_whatever_comes_the_request_ends_once(events: list[Answer | float]) -> None:
    asking, now = Asking(), 0.0
    for event in events:
        if isinstance(event, float):
            now += event
            asking.asker.handle_timer(now)
        else:
            with suppress(BadPacket):
                asking.asker.received(Answer.parse(event.pack()))
    asking.asker.handle_timer(now + GIVE_UP_AFTER)
    assert len(asking.answers) == 1
    assert asking.asker.deadline == NEVER
