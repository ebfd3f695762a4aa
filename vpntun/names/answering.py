"""Answers of the name server to the bytes of a question, without I/O. Whatever the bytes are, nothing is raised.

    not a question: an answer, or too short              no answer
    another operation than a query                       NOTIMP
    not one question, with one OPT record at most        FORMERR
    a version of EDNS other than 0                       BADVERS
    another class than IN, or a transfer of a zone       REFUSED
    every record of a name (ANY)                         one HINFO record, as in RFC 8482
    a name or an address that the directory decides on   its records, NXDOMAIN, or no records; authoritative, with SOA
    a name without a dot, for its address                NXDOMAIN
    everything else                                      to be asked of others (forwarding.py), if that is desired

An answer has the question as it was written, and an OPT record if the question had one. If it is longer than the asker
or LARGEST_DATAGRAM allows, it is empty and says so (TC), and the asker comes back over TCP, where it has room.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdataclass import IN
from dns.rdatatype import AAAA, ANY, AXFR, HINFO, IXFR, PTR, SOA, A

from vpntun.names.others import HEADER, OPT, OthersAnswer
from vpntun.names.zones import Directory, Found, Labels, Unknown
from vpntun.types import IpAddress

LARGEST_DATAGRAM = 1232
"""Bytes of an answer by UDP that no path has to cut into fragments (DNS flag day 2020)."""
SMALLEST_LIMIT, LARGEST_MESSAGE = 512, 65535
LARGEST_QUESTION = 4096
MOST_RECORDS = 64
"""Records of an answer. A peer may have thousands of addresses, and the tunnel's packets wait meanwhile."""
SECONDS_TO_KEEP = 30
"""How long others may keep an answer: peers come and go."""

_QR, _OPCODE, _RD = 0x8000, 0x7800, 0x0100
_META = range(128, 256)
"""Types of questions for which there is no record (RFC 6895), apart from ANY."""


@dataclass(frozen=True)
class Question:
    """A question that was parsed. `limit`: bytes that its answer may have. `labels`: its name, in lower case."""

    message: dns.message.Message
    name: dns.name.Name
    type: dns.rdatatype.RdataType
    labels: Labels
    limit: int

    @property
    def key(self) -> tuple[Labels, int, bool, bool, bool]:
        """What two questions have in common that the same answer of others is good for."""
        flags, wants_dnssec = self.message.flags, bool(self.message.ednsflags & dns.flags.DO)
        return self.labels, int(self.type), self.has_edns, wants_dnssec, bool(flags & dns.flags.CD)

    @property
    def has_edns(self) -> bool:
        """Whether it has an OPT record, and so the answer has to."""
        return self.message.edns >= 0

    @property
    def section(self) -> bytes:
        """The bytes of the question itself: name, type and class."""
        return b"".join(_packed_label(each) for each in self.name.labels) + struct.pack("!HH", self.type, IN)

    def answered(self, other: OthersAnswer) -> bytes:
        """Return the answer that others have given, as an answer to this question."""
        if other.rcode > dns.rcode.REFUSED:
            return self.failed()
        flags = dns.flags.QR | dns.flags.RA | self.message.flags & dns.flags.RD
        whole = other.as_answer_to(self.message.id, int(flags), self.section)
        return whole if len(whole) <= self.limit else self._cut()

    def _cut(self) -> bytes:
        """Return the answer that there is more than its limit allows."""
        response = _response(self)
        response.flags |= dns.flags.TC
        return response.to_wire()

    def failed(self) -> bytes:
        """Return the answer SERVFAIL."""
        return _with_rcode(self, dns.rcode.SERVFAIL)


def answer(data: bytes, directory: Directory, *, is_stream: bool) -> bytes | Question | None:
    """Return the answer to a message, the question if others have to be asked, or None if there is no answer.

    `is_stream`: the message came over TCP, where answers may be long.
    """
    if len(data) < HEADER.size:
        return None
    flags = HEADER.unpack_from(data)[1]
    if flags & _QR:
        return None
    if flags & _OPCODE:
        return _without_question(data, dns.rcode.NOTIMP)
    question = _parsed(data, is_stream=is_stream)
    if question is None:
        return _without_question(data, dns.rcode.FORMERR)
    if question.message.edns > 0:
        return _with_rcode(question, dns.rcode.BADVERS)
    if question.message.question[0].rdclass != IN or question.type in (AXFR, IXFR):
        return _with_rcode(question, dns.rcode.REFUSED)
    if question.type in _META and question.type != ANY:
        return _with_rcode(question, dns.rcode.NOTIMP)
    return _answered(question, directory)


def _answered(question: Question, directory: Directory) -> bytes | Question:
    zone, found = directory.find(question.labels)
    if found is Unknown.OTHERS_KNOW:
        if question.type == ANY:
            return _packed(_response(question, _least(question)), question)
        if len(question.labels) == 1 and question.type in (A, AAAA):
            return _with_rcode(question, dns.rcode.NXDOMAIN)
        if not question.message.flags & dns.flags.RD:
            return _with_rcode(question, dns.rcode.REFUSED)
        return question
    records = _records(question, found) if isinstance(found, Found) else None
    response = _response(question, records)
    response.flags |= dns.flags.AA
    if not isinstance(found, Found):
        response.set_rcode(dns.rcode.NXDOMAIN)
    if records is None:
        authority = _authority(zone, directory.host)
        is_asked_for = question.type == SOA and authority.name == question.name
        (response.answer if is_asked_for else response.authority).append(authority)
    return _packed(response, question)


def _parsed(data: bytes, *, is_stream: bool) -> Question | None:
    if len(data) > LARGEST_QUESTION or not _is_plain(data):
        return None
    try:
        message = dns.message.from_wire(data)
        asked = message.question[0]
        labels = tuple(_label(each) for each in asked.name.labels[:-1])
        limit = min(max(message.payload, SMALLEST_LIMIT), LARGEST_DATAGRAM)
        return Question(message, asked.name, asked.rdtype, labels, LARGEST_MESSAGE if is_stream else limit)
    except Exception:  # the library's parser, on the bytes of strangers
        return None


def _is_plain(data: bytes) -> bool:
    """Whether a message has one question, and nothing behind it but one OPT record.

    The library keeps something for each kind of record that it has met, so it must not meet those that strangers make.
    """
    _, _, questions, answers, authorities, others = HEADER.unpack_from(data)
    if (questions, answers, authorities) != (1, 0, 0) or others > 1:
        return False
    at = HEADER.size
    while at < len(data) and 0 < data[at] < 64:
        at += 1 + data[at]
    end = at + 1 + 4
    return not others or data[end : end + len(OPT)] == OPT


def _label(label: bytes) -> str:
    """Return a label in lower case. A dot in it stays apart from those between labels."""
    return label.decode("latin-1").lower().replace(".", "\\.")


def _packed_label(label: bytes) -> bytes:
    return bytes([len(label)]) + label


def _records(question: Question, found: Found) -> dns.rrset.RRset | None:
    """Return the records of the type asked for; None if there are none."""
    if question.type == ANY:
        return _least(question)
    if question.type == PTR:
        packed = [dns.name.from_text(name).to_digestable() for name in found.names]
    else:
        packed = [each.packed for each in found.addresses if question.type == _type_of(each)]
    if not packed:
        return None
    different = list(dict.fromkeys(packed))[:MOST_RECORDS]
    rdatas = [dns.rdata.GenericRdata(IN, question.type, each) for each in different]
    return dns.rrset.from_rdata_list(question.name, SECONDS_TO_KEEP, rdatas)


def _least(question: Question) -> dns.rrset.RRset:
    return dns.rrset.from_text(question.name, SECONDS_TO_KEEP, IN, HINFO, '"RFC8482" ""')


def _type_of(address: IpAddress) -> dns.rdatatype.RdataType:
    return A if address.version == 4 else AAAA


@lru_cache(maxsize=256)
def _authority(zone: str, host: str) -> dns.rrset.RRset:
    """Return the SOA record that says for how long a name's absence may be believed."""
    text = f"{host}. hostmaster.{host}. 1 3600 600 86400 {SECONDS_TO_KEEP}"
    return dns.rrset.from_text(dns.name.from_text(zone), SECONDS_TO_KEEP, IN, SOA, text)


def _response(question: Question, records: dns.rrset.RRset | None = None) -> dns.message.Message:
    response = dns.message.make_response(question.message, recursion_available=True, our_payload=LARGEST_DATAGRAM)
    if question.message.edns >= 0 and question.message.ednsflags & dns.flags.DO:
        response.ednsflags |= dns.flags.DO
    if records is not None:
        response.answer.append(records)
    return response


def _with_rcode(question: Question, rcode: dns.rcode.Rcode) -> bytes:
    response = _response(question)
    response.set_rcode(rcode)
    return _packed(response, question)


def _packed(response: dns.message.Message, question: Question) -> bytes:
    """Return a response as bytes; without its records, and marked, if it would be too long."""
    try:
        return response.to_wire(max_size=question.limit)
    except dns.exception.TooBig:
        response.answer, response.authority = [], []
        response.flags |= dns.flags.TC
    return response.to_wire()


def _without_question(data: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """Return an answer to a message that cannot be understood: a header alone."""
    number, flags, *_ = HEADER.unpack_from(data)
    return HEADER.pack(number, _QR | flags & (_OPCODE | _RD) | int(rcode), 0, 0, 0, 0)
