"""Answers: each kind of request has its own maker, and a failure tells the peer nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import ExpectedErrors
from tests.datapath.ends import ALICE, BOB, End, TwoEnds
from tests.machine import HandLoop
from vpntun.datapath.answers import Answers
from vpntun.link.link import Link

ONE, OTHER, UNKNOWN = 1, 2, 3


@pytest.fixture
def link(loop: HandLoop) -> Iterator[Link]:
    ends = TwoEnds(End(ALICE, loop), End(BOB, loop))
    yield ends.alice.link
    ends.close()


@pytest.fixture
def answers(loop: HandLoop) -> Answers:
    return Answers(loop.internal_errors)


def test_each_kind_of_request_has_its_own_maker_which_may_need_time(answers: Answers, link: Link) -> None:
    answers.add(ONE, lambda link, content: {"peer": link.peer.public, **content})
    answers.add(OTHER, lambda link, content: None)
    assert answers.answer(link, ONE, {"text": "x"}) == {"peer": BOB.public, "text": "x"}
    assert answers.answer(link, OTHER, {}) is None
    assert answers.answer(link, UNKNOWN, {}) == {"refused": "this vpntun does not know the request"}


def test_of_a_failure_the_peer_learns_only_that_there_was_one(
    answers: Answers, link: Link, expected_errors: ExpectedErrors
) -> None:
    def fail(link: Link, content: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError("a secret of this end")

    answers.add(ONE, fail)
    assert answers.answer(link, ONE, {}) == {"refused": "internal error: the log of the tunnel has it"}
    assert expected_errors.take() == ["RuntimeError('a secret of this end')"]
