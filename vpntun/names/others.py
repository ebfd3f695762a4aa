"""Answer of another name server, of which only the header and the question are read.

Its records are passed on as they came. To parse those of the longest answers takes tenths of a second, in which the
loop carries no packet; and whoever has a domain decides how long answers are, and of which kinds of records.

A server that fails or refuses may leave out the question and everything else, such as one that does not know EDNS.

Offsets inside a message (RFC 1035, section 4.1.4) stay right, since the question stays in its place.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import dns.flags
import dns.rcode

HEADER = struct.Struct("!HHHHHH")
_TYPE_AND_CLASS = 4
_OPCODE = 0x7800
_TELLING = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
"""Statuses that say something about the name in the question."""
OPT = b"\0\0\x29"
"""How an OPT record begins (RFC 6891): the root's name, and the type."""
_RCODE_IN_OPT = 5
"""Offset of the upper 8 bits of the status in an OPT record."""


@dataclass(frozen=True)
class OthersAnswer:
    """An answer. `rcode`: its status; `flags`: all flags of its header; `counts`: how many records it has of each part.

    `records`: the bytes behind the question.
    """

    rcode: int
    flags: int
    counts: tuple[int, int, int]
    records: bytes

    @classmethod
    def parse(cls, data: bytes, number: int, question: bytes) -> OthersAnswer | None:
        """Return the answer in untrusted bytes; None if it does not have this number, or answers another question.

        `question`: the question as it was sent. Letters of its name may have another case in the answer.
        """
        end = HEADER.size + len(question)
        if len(data) < HEADER.size:
            return None
        its_number, flags, questions, *counts = HEADER.unpack_from(data)
        if its_number != number or not flags & dns.flags.QR or flags & _OPCODE:
            return None
        if len(data) == HEADER.size and flags & 0xF not in _TELLING and not any((questions, *counts)):
            return cls(flags & 0xF, flags, (0, 0, 0), b"")
        if questions != 1 or len(data) < end:
            return None
        if not _are_equal(data[HEADER.size : end], question):
            return None
        answers, authorities, others = counts
        rcode = flags & 0xF
        if not answers and not authorities and data[end : end + len(OPT)] == OPT and len(data) > end + _RCODE_IN_OPT:
            rcode |= data[end + _RCODE_IN_OPT] << 4
        return cls(rcode, flags, (answers, authorities, others), data[end:])

    @property
    def is_cut(self) -> bool:
        """Whether the server has more to say than the datagram had room for."""
        return bool(self.flags & dns.flags.TC)

    def as_answer_to(self, number: int, flags: int, question: bytes) -> bytes:
        """Return it as the answer to a question of this number, with more flags. `question`: as it was asked."""
        kept = self.flags & (dns.flags.AD | dns.flags.CD)
        return HEADER.pack(number, flags | kept | self.rcode & 0xF, 1, *self.counts) + question + self.records


def _are_equal(one: bytes, other: bytes) -> bool:
    return (one[:-_TYPE_AND_CLASS].lower(), one[-_TYPE_AND_CLASS:]) == (
        other[:-_TYPE_AND_CLASS].lower(),
        other[-_TYPE_AND_CLASS:],
    )
