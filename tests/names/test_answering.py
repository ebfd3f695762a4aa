"""Answers to questions: the right status for each kind, sizes, EDNS, and nothing that any bytes could break."""

from __future__ import annotations

import struct

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.names.directories import directory, peer
from vpntun.names.answering import LARGEST_DATAGRAM, LARGEST_QUESTION, MOST_RECORDS, Question, answer

KNOWN = directory(
    peer("laptop", "10.9.0.2/32", "fd09::2/128"),
    records=("big " + " ".join(f"fd09::a:{number:x}" for number in range(16)),) * 4,
)
VALID = dns.message.make_query("laptop.office.internal", "A", use_edns=0, id=4660).to_wire()


def ask(
    name: str, kind: str = "A", *, is_stream: bool = False, kind_class: str = "IN", **how: object
) -> dns.message.Message:
    """The answer to a question that needs nobody else."""
    asked = dns.message.make_query(name, kind, kind_class, **how)  # type: ignore[arg-type]
    found = answer(asked.to_wire(), KNOWN, is_stream=is_stream)
    assert isinstance(found, bytes)
    parsed = dns.message.from_wire(found)
    assert (parsed.id, parsed.question) == (asked.id, asked.question)
    assert parsed.flags & dns.flags.QR
    return parsed


def records(response: dns.message.Message) -> list[str]:
    return sorted(str(each) for rrset in response.answer for each in rrset)


def test_names_of_the_domain_are_answered_with_authority() -> None:
    response = ask("LapTop.Office.Internal")
    assert records(response) == ["10.9.0.2"]
    assert str(response.answer[0].name) == str(response.question[0].name) == "LapTop.Office.Internal."
    assert response.flags & dns.flags.AA
    assert response.flags & dns.flags.RA
    assert records(ask("laptop.office.internal", "AAAA")) == ["fd09::2"]
    assert records(ask("2.0.9.10.in-addr.arpa", "PTR")) == ["laptop.office.internal."]


def test_a_name_that_does_not_exist_is_told_from_one_without_such_records() -> None:
    absent, empty = ask("nobody.office.internal"), ask("laptop.office.internal", "MX")
    assert (absent.rcode(), empty.rcode()) == (dns.rcode.NXDOMAIN, dns.rcode.NOERROR)
    for response in (absent, empty):
        assert response.answer == []
        assert str(response.authority[0].name) == "office.internal."
        assert response.authority[0].ttl == 30
    assert records(ask("office.internal", "SOA"))[0].startswith("hub.office.internal. hostmaster.")


def test_any_is_answered_with_as_little_as_possible_and_never_forwarded() -> None:
    for name in ("laptop.office.internal", "example.org"):
        assert records(ask(name, "ANY")) == ['"RFC8482" ""']


@pytest.mark.parametrize(
    ("name", "kind", "kind_class", "status"),
    [
        ("laptop.office.internal", "AXFR", "IN", dns.rcode.REFUSED),
        ("laptop.office.internal", "A", "ANY", dns.rcode.REFUSED),
        ("version.bind", "TXT", "CH", dns.rcode.REFUSED),
        ("example.org", "MAILB", "IN", dns.rcode.NOTIMP),
        ("laptop", "A", "IN", dns.rcode.NXDOMAIN),
    ],
)
def test_what_is_not_answered_has_the_status_that_says_why(name: str, kind: str, kind_class: str, status: int) -> None:
    assert ask(name, kind, kind_class=kind_class).rcode() == status


def test_an_unknown_version_of_edns_is_refused() -> None:
    query = dns.message.make_query("laptop.office.internal", "A")
    query.use_edns(3)
    found = answer(query.to_wire(), KNOWN, is_stream=False)
    assert isinstance(found, bytes)
    response = dns.message.from_wire(found)
    assert (response.rcode(), response.edns, response.answer) == (dns.rcode.BADVERS, 0, [])


def test_edns_is_answered_with_this_servers_size_and_only_if_it_was_asked_with() -> None:
    with_edns = ask("laptop.office.internal", use_edns=0, payload=4096, want_dnssec=True)
    assert (with_edns.edns, with_edns.payload) == (0, LARGEST_DATAGRAM)
    assert with_edns.ednsflags & dns.flags.DO
    assert ask("laptop.office.internal").edns == -1


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (100, 512), (600, 600), (65535, LARGEST_DATAGRAM)])
def test_an_answer_that_is_too_long_is_cut_and_comes_whole_over_tcp(payload: int | None, limit: int) -> None:
    how = {} if payload is None else {"use_edns": 0, "payload": payload}
    query = dns.message.make_query("big.office.internal", "AAAA", **how)  # type: ignore[arg-type]
    found = answer(query.to_wire(), KNOWN, is_stream=False)
    assert isinstance(found, bytes)
    assert len(found) <= limit
    response = dns.message.from_wire(found)
    is_cut = limit < 12 + 25 + 16 * 28
    assert bool(response.flags & dns.flags.TC) == is_cut
    assert len(records(ask("big.office.internal", "AAAA", is_stream=True))) == 16


def test_a_name_with_thousands_of_addresses_is_answered_with_some_of_them() -> None:
    many = directory(peer("rack", *(f"10.8.{number >> 8}.{number & 255}/32" for number in range(2000))))
    found = answer(dns.message.make_query("rack.office.internal", "A").to_wire(), many, is_stream=True)
    assert isinstance(found, bytes)
    assert len(records(dns.message.from_wire(found))) == MOST_RECORDS


def test_other_names_are_for_others_if_that_is_desired() -> None:
    query = dns.message.make_query("www.Example.org", "MX")
    found = answer(query.to_wire(), KNOWN, is_stream=False)
    assert isinstance(found, Question)
    assert found.labels == ("www", "example", "org")
    query.flags = 0
    refused = answer(query.to_wire(), KNOWN, is_stream=False)
    assert isinstance(refused, bytes)
    assert dns.message.from_wire(refused).rcode() == dns.rcode.REFUSED


def test_answers_and_fragments_are_not_answered() -> None:
    assert answer(VALID[:11], KNOWN, is_stream=False) is None
    assert answer(VALID[:2] + b"\x80" + VALID[3:], KNOWN, is_stream=False) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (VALID[:2] + b"\x29" + VALID[3:], dns.rcode.NOTIMP),  # UPDATE
        (VALID[:12], dns.rcode.FORMERR),
        (VALID[:-1], dns.rcode.FORMERR),
        (VALID + b"\0", dns.rcode.FORMERR),
        (VALID[:4] + b"\0\2" + VALID[6:], dns.rcode.FORMERR),  # two questions
        (VALID[:4] + b"\0\0" + VALID[6:], dns.rcode.FORMERR),
        (VALID[:10] + b"\0\0", dns.rcode.FORMERR),
        (VALID.replace(b"\0\0\x29", b"\0\0\x30"), dns.rcode.FORMERR),  # another record than OPT
        (VALID[:12] + b"\xc0\x0c" + VALID[14:], dns.rcode.FORMERR),  # a name that is its own end
        (VALID[:12] + b"\0" * LARGEST_QUESTION, dns.rcode.FORMERR),
    ],
)
def test_what_cannot_be_understood_gets_a_header_that_says_so(data: bytes, status: int) -> None:
    found = answer(data, KNOWN, is_stream=False)
    assert isinstance(found, bytes)
    assert len(found) == 12
    number, flags = struct.unpack_from("!HH", found)
    assert (number, flags & 0x8000, flags & 0xF) == (struct.unpack_from("!H", data)[0], 0x8000, status)


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_answered_or_dropped(data: bytes, is_stream: bool) -> None:
    check(data, is_stream)


@given(st.integers(0, len(VALID)), st.binary(max_size=12), st.binary(max_size=8), st.booleans())
def test_any_change_of_a_question_is_answered_or_dropped(at: int, put: bytes, behind: bytes, is_stream: bool) -> None:
    check(VALID[:at] + put + VALID[at + len(put) :] + behind, is_stream)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8), st.integers(0, 65535), st.integers(0, 65535))
def test_any_name_type_and_class_are_answered(labels: list[bytes], kind: int, kind_class: int) -> None:
    name = b"".join(bytes((len(each),)) + each for each in labels) + b"\0"
    check(struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, kind_class), False)


def check(data: bytes, is_stream: bool) -> None:
    """Answer a message; an answer has its number, says that it is one, and is short enough."""
    found = answer(data, KNOWN, is_stream=is_stream)
    if isinstance(found, bytes):
        assert found[:2] == data[:2]
        assert found[2] & 0x80
        assert is_stream or len(found) <= LARGEST_DATAGRAM
        if not found[2] & 0x78:  # an older dnspython does not know all operations
            dns.message.from_wire(found)
