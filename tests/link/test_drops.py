"""Drops: each is counted under its reason; the log tells of those that an operator can mend, at a bounded rate."""

from __future__ import annotations

from collections import Counter

from tests.machine import logged
from vpntun.carriers.fake import FakeEndpoint
from vpntun.errors import BadPacket
from vpntun.link.drops import ADVICE, note_drop
from vpntun.runtime.log import Warnings

THERE = FakeEndpoint("there")


def test_a_reason_is_counted_and_not_logged() -> None:
    drops: Counter[str] = Counter()
    with logged() as lines:
        for _ in range(3):
            note_drop(drops, Warnings(), BadPacket("bad type"), THERE)
    assert drops == {"bad type": 3}
    assert lines == ["dropped a message from there: bad type"] * 3, "at debug level alone"


def test_a_reason_that_an_operator_can_mend_is_logged_once_with_the_endpoint() -> None:
    drops: Counter[str] = Counter()
    warnings = Warnings()
    with logged() as lines:
        for reason in ADVICE:
            for _ in range(5):
                note_drop(drops, warnings, BadPacket(reason), THERE)
    assert drops == dict.fromkeys(ADVICE, 5)
    told = [line for line in lines if not line.startswith("dropped a message")]
    assert len(told) == len(ADVICE)
    assert all("there" in line for line in told)
