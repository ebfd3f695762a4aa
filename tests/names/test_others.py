"""Answers of other name servers: which ones fit a question, and that their records are passed on as they came."""

from __future__ import annotations

import struct
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.names.directories import directory
from tests.names.outside import records
from vpntun.names.answering import LARGEST_DATAGRAM, Question, answer
from vpntun.names.others import OthersAnswer

KNOWN = directory()
NUMBER = 4711


def question(name: str = "www.EXAMPLE.org", *, is_stream: bool = False, **how: Any) -> Question:
    found = answer(dns.message.make_query(name, "A", **how).to_wire(), KNOWN, is_stream=is_stream)
    assert isinstance(found, Question)
    return found


def response(*addresses: str, name: str = "www.example.org", **how: Any) -> dns.message.Message:
    """The answer of a server to which a question with NUMBER was sent."""
    query = dns.message.make_query(name, "A", **how)
    query.id = NUMBER
    made = dns.message.make_response(query, recursion_available=True)
    if addresses:
        made.answer.append(dns.rrset.from_text_list(f"{name}.", 60, "IN", "A", list(addresses)))
    return made


def parsed(other: dns.message.Message | bytes, asked: Question) -> OthersAnswer | None:
    data = other if isinstance(other, bytes) else other.to_wire(max_size=65535)
    return OthersAnswer.parse(data, NUMBER, asked.section)


def passed_on(other: dns.message.Message, asked: Question) -> dns.message.Message:
    found = parsed(other, asked)
    assert found is not None
    return dns.message.from_wire(asked.answered(found))


def test_an_answer_of_others_gets_the_number_and_the_case_of_the_question_and_keeps_its_records() -> None:
    asked = question()
    other = response("203.0.113.7", "203.0.113.8")
    other.answer.append(dns.rrset.from_text("alias.www.example.org.", 5, "IN", "CNAME", "www.example.org."))
    other.authority.append(dns.rrset.from_text("example.org.", 5, "IN", "NS", "ns.example.org."))
    other.flags |= dns.flags.AD
    got = passed_on(other, asked)
    assert (got.id, got.edns, got.rcode()) == (asked.message.id, -1, dns.rcode.NOERROR)
    assert got.question[0].name.to_text() == "www.EXAMPLE.org."
    assert (got.answer, got.authority) == (other.answer, other.authority)
    assert got.flags & (dns.flags.QR | dns.flags.RD | dns.flags.RA | dns.flags.AD) == got.flags


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_a_status_that_peers_understand_is_passed_on(rcode: dns.rcode.Rcode) -> None:
    other = response()
    other.set_rcode(rcode)
    assert passed_on(other, question()).rcode() == rcode


@pytest.mark.parametrize("rcode", [dns.rcode.NOTAUTH, dns.rcode.BADVERS, dns.rcode.BADCOOKIE])
def test_another_status_is_a_failure_also_if_an_opt_record_has_half_of_it(rcode: dns.rcode.Rcode) -> None:
    other = response(use_edns=0)
    other.set_rcode(rcode)
    assert passed_on(other, question(use_edns=0)).rcode() == dns.rcode.SERVFAIL


def test_an_answer_that_is_too_long_for_its_asker_is_cut_and_comes_whole_over_tcp() -> None:
    other = response(*(f"10.{number >> 8}.{number & 255}.1" for number in range(3900)))
    cut, whole = passed_on(other, question()), passed_on(other, question(is_stream=True))
    assert (cut.flags & dns.flags.TC, cut.answer, cut.edns) == (dns.flags.TC, [], -1)
    assert passed_on(other, question(use_edns=0)).payload == LARGEST_DATAGRAM
    assert not whole.flags & dns.flags.TC
    assert len(records(whole)) == 3900


@pytest.mark.parametrize("rcode", [dns.rcode.FORMERR, dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED])
def test_a_server_that_fails_may_leave_out_the_question(rcode: dns.rcode.Rcode) -> None:
    asked = question()
    found = parsed(struct.pack("!HHHHHH", NUMBER, 0x8000 | rcode, 0, 0, 0, 0), asked)
    assert found is not None
    got = dns.message.from_wire(asked.answered(found))
    assert (got.rcode(), got.question) == (rcode, asked.message.question)


@pytest.mark.parametrize(
    "head", [(NUMBER ^ 1, 0x8002, 0), (NUMBER, 0x0002, 0), (NUMBER, 0x8003, 0), (NUMBER, 0x8000, 0)]
)
def test_a_header_alone_says_nothing_else(head: tuple[int, int, int]) -> None:
    assert parsed(struct.pack("!HHHHHH", *head, 0, 0, 0), question()) is None


def test_only_an_answer_to_the_question_itself_fits() -> None:
    asked = question()
    fitting = response("203.0.113.7").to_wire()
    assert parsed(fitting, asked) is not None
    for other in (
        fitting[:28],
        struct.pack("!H", NUMBER ^ 1) + fitting[2:],
        fitting[:2] + b"\x01" + fitting[3:],  # a question
        fitting[:2] + b"\xa8" + fitting[3:],  # the answer to an update
        fitting[:4] + b"\0\2" + fitting[6:],  # to two questions
        fitting.replace(b"example", b"examp1e"),
        fitting[:29] + b"\0\x1c" + fitting[31:],  # of another type
    ):
        assert parsed(other, asked) is None


@given(st.integers(0, 80), st.binary(max_size=6), st.integers(0, 6), st.booleans())
def test_whatever_the_bytes_are_an_answer_to_this_question_comes_of_them_or_none(
    at: int, put: bytes, cut: int, has_edns: bool
) -> None:
    asked = question(use_edns=0 if has_edns else -1)
    fitting = response("203.0.113.7", use_edns=0).to_wire()
    found = parsed(fitting[:at] + put + fitting[at + cut :], asked)
    if found is not None:
        got = asked.answered(found)
        assert struct.unpack_from("!H", got)[0] == asked.message.id
        assert len(got) <= max(asked.limit, 512)
        assert got[12 : 12 + len(asked.section)] == asked.section
