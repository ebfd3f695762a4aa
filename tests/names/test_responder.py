"""The limits on askers, and what is counted."""

from __future__ import annotations

from collections import Counter

import dns.message

from tests.machine import HandLoop
from tests.names.directories import directory, peer
from tests.names.outside import Outside
from tests.names.test_forwarding import servers_of
from vpntun.names.responder import BURST_OF_A_SOURCE, BURST_OF_ALL, Responder

KNOWN = directory(peer("laptop", "10.9.0.2/32"))


class Peer:
    """Some peer."""


QUESTION = dns.message.make_query("laptop.office.internal", "A", id=4660).to_wire()


def test_one_source_cannot_take_what_others_need(loop: HandLoop) -> None:
    counts: Counter[str] = Counter()
    responder = Responder(loop, lambda: KNOWN, servers_of(), lambda _: None, counts)
    answers: list[bytes] = []

    def flood(source: int, count: int) -> int:
        before = len(answers)
        for _ in range(count):
            responder.take(QUESTION, source.to_bytes(4, "big"), answers.append, is_stream=False)
        return len(answers) - before

    assert flood(1, 500) == BURST_OF_A_SOURCE
    assert flood(2, 1) == 1
    assert sum(flood(source, 500) for source in range(3, 30)) == BURST_OF_ALL - BURST_OF_A_SOURCE - 1
    loop.pass_time(1)
    assert flood(1, 500) == BURST_OF_A_SOURCE
    assert counts["asked"] == counts["answered"] + counts["limited"]


def test_a_peer_with_many_addresses_has_one_share(loop: HandLoop) -> None:
    laptop = Peer()
    responder = Responder(loop, lambda: KNOWN, servers_of(), lambda _: laptop, Counter())
    answers: list[bytes] = []
    for number in range(500):
        responder.take(QUESTION, number.to_bytes(4, "big"), answers.append, is_stream=False)
    assert len(answers) == BURST_OF_A_SOURCE


def test_a_question_that_was_answered_before_gets_the_answer_of_the_moment_with_its_own_number(loop: HandLoop) -> None:
    known = [KNOWN]
    responder = Responder(loop, lambda: known[0], servers_of(), lambda _: None, Counter())
    answers: list[bytes] = []

    def addresses_at(number: int) -> tuple[int, list[str]]:
        responder.take(number.to_bytes(2, "big") + QUESTION[2:], b"\x0a\x09\x00\x02", answers.append, is_stream=False)
        got = dns.message.from_wire(answers[-1])
        return got.id, [record.address for found in got.answer for record in found]

    assert addresses_at(1) == (1, ["10.9.0.2"])
    assert addresses_at(0xABCD) == (0xABCD, ["10.9.0.2"])
    known[0] = directory(peer("laptop", "10.9.0.3/32"))
    assert addresses_at(2) == (2, ["10.9.0.3"])


def test_each_kind_of_answer_is_counted(loop: HandLoop, outside: Outside) -> None:
    counts: Counter[str] = Counter()
    responder = Responder(loop, lambda: KNOWN, servers_of(outside.place), lambda _: None, counts)
    answers: list[bytes] = []

    def take(data: bytes) -> bool:
        return responder.take(data, b"\x0a\x09\x00\x02", answers.append, is_stream=False)

    assert take(QUESTION)
    assert not take(b"")
    assert take(dns.message.make_query("www.example.org", "A").to_wire())
    outside.next_question()
    outside.answer("203.0.113.7")
    loop.until(lambda: len(answers) == 2)
    assert take(dns.message.make_query("mail.example.org", "A").to_wire())
    for _ in range(9):
        loop.settle(0.01)
        loop.pass_time(1)
    assert len(answers) == 3
    assert counts == {"asked": 4, "answered": 1, "forwarded": 2, "failed": 1}
    responder.close()
