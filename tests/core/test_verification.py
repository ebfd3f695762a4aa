"""Verification: what proves that data arrives, how often it is asked for, and when an old proof is doubted."""

from __future__ import annotations

from vpntun.core.verification import Verification
from vpntun.types import NEVER


def test_nothing_is_proven_or_awaited_at_first() -> None:
    verification = Verification()
    assert (verification.proven_at, verification.awaited_since, verification.is_awaited) == (-NEVER, NEVER, False)
    assert not verification.is_doubted(1e9)


def test_however_many_ask_there_is_one_probe_a_second() -> None:
    verification, sent = Verification(), []
    for tenth in range(31):
        if verification.may_ask(tenth / 10):
            verification.asked(tenth / 10)
            sent.append(tenth / 10)
    assert sent == [0.0, 1.0, 2.0, 3.0]


def test_a_proof_ends_the_wait_and_the_next_request_begins_another() -> None:
    verification = Verification()
    verification.asked(10.0)
    verification.asked(11.0)
    assert verification.awaited_since == 10.0
    verification.proven(11.5)
    assert (verification.proven_at, verification.is_awaited) == (11.5, False)
    verification.asked(12.0)
    assert verification.awaited_since == 12.0


def test_one_lost_answer_never_makes_a_proof_doubtful_but_three_do() -> None:
    verification = Verification()
    verification.proven(0.0)
    verification.asked(1.0)
    assert not verification.is_doubted(29.0)
    verification.asked(2.0)
    verification.asked(3.0)
    assert not verification.is_doubted(3.4)
    assert verification.is_doubted(3.5)
    verification.proven(4.0)
    assert not verification.is_doubted(100.0)


def test_on_another_path_nothing_is_proven_and_the_limit_of_requests_remains() -> None:
    verification = Verification()
    verification.asked(1.0)
    verification.proven(1.1)
    verification.begin()
    assert (verification.proven_at, verification.is_awaited) == (-NEVER, False)
    assert not verification.may_ask(1.9)
    assert verification.may_ask(2.0)
