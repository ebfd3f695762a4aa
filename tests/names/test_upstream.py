"""One question to one server: which answer counts, and when there is none."""

from __future__ import annotations

import dns.flags
import dns.message
import pytest

from tests.machine import HandLoop
from tests.names.directories import directory
from tests.names.outside import (
    Change,
    Outside,
    has_other_number,
    has_other_question,
    is_cut,
    is_no_answer,
    records,
)
from vpntun.names.answering import Question, answer
from vpntun.names.others import OthersAnswer
from vpntun.names.upstream import SECONDS_FOR_TCP, SECONDS_TO_ANSWER, Upstream
from vpntun.types import Place

KNOWN = directory()


def question(name: str = "www.example.org", **how: bool) -> Question:
    found = answer(dns.message.make_query(name, "A", **how).to_wire(), KNOWN, is_stream=False)  # type: ignore[arg-type]
    assert isinstance(found, Question)
    return found


class Asked:
    """One question to a server, and its answers."""

    def __init__(self, loop: HandLoop, place: Place, asked: Question | None = None) -> None:
        self.answers: list[dns.message.Message | None] = []
        self.question = asked or question()
        self.upstream = Upstream(loop, place, self.question, 0, self._note)

    def _note(self, answer: OthersAnswer | None) -> None:
        self.answers.append(dns.message.from_wire(self.question.answered(answer)) if answer is not None else None)


def test_the_answer_of_the_server_is_taken(loop: HandLoop, outside: Outside) -> None:
    asked = Asked(loop, outside.place, question(want_dnssec=True))
    seen = outside.next_question()
    assert seen.question[0].name.to_text() == "www.example.org."
    assert seen.flags & dns.flags.RD
    assert seen.ednsflags & dns.flags.DO
    outside.answer("203.0.113.7")
    loop.until(lambda: asked.answers)
    assert asked.answers[0] is not None
    assert records(asked.answers[0]) == ["203.0.113.7"]
    loop.pass_time(60)
    assert len(asked.answers) == 1


@pytest.mark.parametrize("change", [has_other_number, has_other_question, is_no_answer])
def test_an_answer_that_does_not_fit_is_ignored_and_the_right_one_still_awaited(
    loop: HandLoop, outside: Outside, change: Change
) -> None:
    asked = Asked(loop, outside.place)
    outside.next_question()
    outside.asked.append(outside.asked[0])
    outside.answer("203.0.113.66", change=change)
    loop.settle()
    assert asked.answers == []
    outside.answer("203.0.113.7")
    loop.until(lambda: asked.answers)
    assert asked.answers[0] is not None
    assert records(asked.answers[0]) == ["203.0.113.7"]


def test_each_question_has_a_port_and_a_number_of_its_own(loop: HandLoop, outside: Outside) -> None:
    several = [Asked(loop, outside.place) for _ in range(8)]
    loop.until(lambda: len(outside.asked) == 8)
    assert len({who for _, who in outside.asked}) == 8
    assert len({message.id for message, _ in outside.asked}) > 4
    for each in several:
        each.upstream.close()
    loop.pass_time(60)
    assert all(each.answers == [] for each in several)


def test_an_answer_that_is_cut_is_asked_for_again_over_tcp(loop: HandLoop, outside: Outside) -> None:
    asked = Asked(loop, outside.place)
    outside.next_question()
    outside.answer(change=is_cut)
    outside.answer_connection("203.0.113.7", "203.0.113.8")
    loop.until(lambda: asked.answers)
    assert asked.answers[0] is not None
    assert len(records(asked.answers[0])) == 2


def test_a_server_that_does_not_answer_has_limited_time(loop: HandLoop, outside: Outside) -> None:
    asked = Asked(loop, outside.place)
    outside.next_question()
    loop.pass_time(SECONDS_TO_ANSWER - 0.1)
    assert asked.answers == []
    loop.pass_time(0.2)
    assert asked.answers == [None]

    asked = Asked(loop, outside.place)
    loop.until(lambda: len(outside.asked) == 2)
    outside.asked.pop(0)
    outside.answer(change=is_cut)
    loop.settle()
    loop.pass_time(SECONDS_TO_ANSWER + 0.1)
    assert asked.answers == []
    loop.pass_time(SECONDS_FOR_TCP)
    assert asked.answers == [None]


def test_a_server_that_is_not_there_fails_at_once(loop: HandLoop, outside: Outside) -> None:
    place = outside.place
    outside.close()
    for each in (place, ("fe80::1%nowhere", 53), ("255.255.255.255", 53)):
        asked = Asked(loop, each)
        loop.until(lambda asked=asked: asked.answers)  # type: ignore[misc]
        assert asked.answers == [None]
