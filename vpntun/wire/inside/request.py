"""REQUEST and ANSWER: one vpntun asks the other something, and gets a JSON object back.

Integers are big endian. Each field is preceded by its offset in bytes; the kind is at offset 0 (wire/record.py).

    7  REQUEST  1 id u64, random; 9 what u8: 1 doctor, 2 speed, 3 services; 10 body: a JSON object in UTF-8, at most
                1,000 bytes
    8  ANSWER   1 id u64, the request's; 9 piece u8, from 0 on; 10 pieces u8, 1 to 16; 11 the piece of the body, 1 to
                1,000 bytes. All pieces together are a JSON object in UTF-8.

A record of either kind fits in one datagram of any path. Everything here handles untrusted bytes: they are
authenticated, but the peer may be hostile. The parsers raise only BadPacket.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer
from vpntun.wire.record import ANSWER, REQUEST

DOCTOR, SPEED, SERVICES = 1, 2, 3
"""What a REQUEST may ask for."""

LARGEST_BODY = 1000
"""Bytes of JSON in one record."""
MOST_PIECES = 16
DEEPEST = 16
"""Objects and lists in a body that may be inside each other."""
LARGEST_ANSWER = MOST_PIECES * LARGEST_BODY

_REQUEST = struct.Struct("!BQB")
_ANSWER = struct.Struct("!BQBB")


@dataclass(frozen=True, slots=True)
class Request:
    """A question: `id` is random and chosen by its sender, `what` is DOCTOR or another of these, `body` is JSON."""

    id: int
    what: int
    body: bytes

    @classmethod
    def parse(cls, plaintext: Buffer) -> Request:
        """Parse a REQUEST. Raises BadPacket("bad request")."""
        if not _REQUEST.size < len(plaintext) <= _REQUEST.size + LARGEST_BODY or plaintext[0] != REQUEST:
            raise BadPacket("bad request")
        _, id, what = _REQUEST.unpack_from(plaintext)
        return cls(id, what, bytes(plaintext[_REQUEST.size :]))

    def pack(self) -> bytes:
        """The record's bytes: 10 more than the body's."""
        return _REQUEST.pack(REQUEST, self.id, self.what) + self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """Piece number `piece`, from 0 on, of the `pieces` of the answer to the request with this id."""

    id: int
    piece: int
    pieces: int
    body: bytes

    @classmethod
    def parse(cls, plaintext: Buffer) -> Answer:
        """Parse an ANSWER. Raises BadPacket("bad answer")."""
        if not _ANSWER.size < len(plaintext) <= _ANSWER.size + LARGEST_BODY or plaintext[0] != ANSWER:
            raise BadPacket("bad answer")
        _, id, piece, pieces = _ANSWER.unpack_from(plaintext)
        if not piece < pieces <= MOST_PIECES:
            raise BadPacket("bad answer")
        return cls(id, piece, pieces, bytes(plaintext[_ANSWER.size :]))

    def pack(self) -> bytes:
        """The record's bytes: 11 more than the body's."""
        return _ANSWER.pack(ANSWER, self.id, self.piece, self.pieces) + self.body


def answers_of(id: int, body: bytes) -> list[Answer]:
    """Cut the body of an answer, of 1 to LARGEST_ANSWER bytes, into pieces."""
    begins = range(0, len(body), LARGEST_BODY)
    return [Answer(id, piece, len(begins), body[begin : begin + LARGEST_BODY]) for piece, begin in enumerate(begins)]


def pack_body(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object as bytes. Raises TypeError or ValueError if it cannot be written as JSON."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the JSON object in these bytes: flat, and without infinite numbers. Raises BadPacket("bad body")."""
    try:
        content = json.loads(body, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        raise BadPacket("bad body") from None
    if not isinstance(content, dict) or not _is_flat(content, DEEPEST):
        raise BadPacket("bad body")
    return content


def _is_flat(content: Any, levels: int) -> bool:
    """Whether at most so many objects and lists are inside each other: whoever passes a body on has to go through."""
    inside = content.values() if isinstance(content, dict) else content if isinstance(content, list) else None
    return inside is None or (levels > 0 and all(_is_flat(each, levels - 1) for each in inside))


def _finite(text: str) -> float:
    """Return a finite number. Raises ValueError."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
