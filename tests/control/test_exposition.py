"""Text of the metrics: whole although it is written in parts, written once a second at most, and only for /metrics."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.control.test_metrics import peer, status
from tests.machine import HandLoop
from vpntun.control.exposition import (
    CONTENT_TYPE,
    SAMPLES_PER_TURN,
    SECONDS_BETWEEN_LOOKS,
    SECONDS_FOR_PROOFS,
    Exposition,
)
from vpntun.control.state import PEERS_PER_TURN
from vpntun.serving.http import Answer, AnyAnswer

MANY = 2 * SAMPLES_PER_TURN + 1


class Asked:
    """An exposition of a tunnel with `count` peers, whose loop the test turns."""

    def __init__(self, count: int) -> None:
        self.loop = HandLoop()
        self.count = count
        self.ranges: list[tuple[int, int]] = []
        self.readies = self.looks = 0
        self.silent: set[int] = set()
        self.exposition = Exposition(
            self.loop,
            count=lambda: self.count,
            status=self._status,
            verify=self._verify,
            on_ready=self._note_readiness,
        )

    def _verify(self, begin: int, end: int) -> bool:
        self.looks += 1
        return bool(self.silent & set(range(begin, end)))

    def _status(self, begin: int, end: int) -> dict[str, Any]:
        self.ranges.append((begin, end))
        return status(*(peer(f"site {number}") for number in range(begin, min(end, self.count))))

    def _note_readiness(self) -> None:
        self.readies += 1

    def ask(self, method: str = "GET", target: str = "/metrics") -> Answer:
        """Ask until there is an answer."""
        answers: list[AnyAnswer | None] = [None]
        readies = self.readies

        def is_answered() -> bool:
            answers.append(self.exposition.answer(method, target))
            return answers[-1] is not None

        if not is_answered():
            self.loop.until(lambda: self.readies > readies)
            assert is_answered()
        [*_, answer] = answers
        assert isinstance(answer, Answer)
        return answer


@pytest.mark.parametrize("count", [0, 1, PEERS_PER_TURN, PEERS_PER_TURN + 1, MANY])
def test_a_text_written_in_parts_has_every_peer_once_and_each_head_once(count: int) -> None:
    asked = Asked(count)
    answer = asked.ask()
    assert (answer.status, answer.content_type) == (HTTPStatus.OK, CONTENT_TYPE)
    assert all(end - begin <= PEERS_PER_TURN for begin, end in asked.ranges)
    families = list(text_string_to_metric_families(answer.body.decode()))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    samples = {family.name: len(family.samples) for family in families}
    assert samples.get("vpntun_peer_sent_bytes", 0) == count
    assert samples.get("vpntun_peer_state", 0) == 4 * count
    assert {"process_open_fds", "process_cpu_seconds", "process_resident_memory_bytes"} <= set(names)


def test_a_text_is_used_for_a_second_and_then_written_again() -> None:
    asked = Asked(1)
    first = asked.ask()
    asked.loop.pass_time(0.9)
    assert asked.ask().body == first.body
    assert len(asked.ranges) == 1
    asked.loop.pass_time(0.2)
    asked.ask()
    assert len(asked.ranges) == 2


def test_those_who_ask_while_a_text_is_written_share_it() -> None:
    asked = Asked(MANY)
    assert asked.exposition.answer("GET", "/metrics") is None
    asked.ask()
    assert asked.readies == 1
    assert len(asked.ranges) == -(-MANY // PEERS_PER_TURN)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("GET", "/", 404), ("GET", "/metrics?a=b", 404), ("POST", "/metrics", 405), ("CONNECT", "/metrics", 405)],
)
def test_nothing_else_is_answered_and_nothing_is_written_for_it(method: str, target: str, status: int) -> None:
    asked = Asked(1)
    answer = asked.exposition.answer(method, target)
    assert isinstance(answer, Answer)
    assert (answer.status, asked.ranges) == (status, [])


def test_head_is_answered_as_get() -> None:
    assert Asked(1).ask("HEAD").status is HTTPStatus.OK


def test_a_peer_that_is_removed_while_the_text_is_written_is_left_out() -> None:
    asked = Asked(PEERS_PER_TURN + 1)
    assert asked.exposition.answer("GET", "/metrics") is None
    asked.count = PEERS_PER_TURN
    assert b'peer="site 0"' in asked.ask().body


def test_every_peer_is_asked_whether_data_arrives_and_those_that_answer_are_waited_for() -> None:
    asked = Asked(PEERS_PER_TURN + 1)
    asked.silent = {PEERS_PER_TURN}
    assert asked.exposition.answer("GET", "/metrics") is None
    asked.loop.settle(0.01)
    assert (asked.looks, asked.readies, asked.ranges) == (2, 0, [])
    asked.silent.clear()
    asked.loop.pass_time(SECONDS_BETWEEN_LOOKS)
    asked.loop.until(lambda: asked.readies == 1)
    assert asked.looks == 3


def test_a_peer_that_does_not_answer_holds_the_text_up_for_half_a_second_only() -> None:
    asked = Asked(1)
    asked.silent = {0}
    assert asked.exposition.answer("GET", "/metrics") is None
    passed = 0.0
    while not asked.readies:
        assert passed < SECONDS_FOR_PROOFS + 3 * SECONDS_BETWEEN_LOOKS
        asked.loop.pass_time(SECONDS_BETWEEN_LOOKS)
        passed += SECONDS_BETWEEN_LOOKS
        asked.loop.settle(0.001)
    assert passed >= SECONDS_FOR_PROOFS - SECONDS_BETWEEN_LOOKS
