"""Messages of a pairing: 36 bytes each, in the framing of TCP, with a type that no message of WireGuard has.

    offset  length  field
    0       1       type, 0xa0
    1       1       version, 1
    2       1       number of the message
    3       1       reason of a REFUSED, else 0
    4       32      body

    number         from    body
    1 OPEN         client  its element of SPAKE2
    2 ANSWER       server  its element of SPAKE2
    3 CLIENT_KNOWS client  proof that the client has the code
    4 SERVER_KNOWS server  proof that the server has the code
    5 READY        client  proof: the client can write its key file
    6 WRITTEN      server  proof: the server has written its key file
    7 NOT_WRITTEN  server  proof: the server could not write it
    8 REFUSED      server  how many tries are left, in the first byte

    OPEN  ->  <-  ANSWER  CLIENT_KNOWS  ->  <-  SERVER_KNOWS  READY  ->  <-  WRITTEN

The client proves first, so an exchange that it breaks off has tested nothing. The server writes its file before the
client does, and only after READY: the client is the one end that may not know how it ended, and its link will tell.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer

TYPE, VERSION = 0xA0, 1
_layout = struct.Struct("BBBB32s")
SIZE = _layout.size


class Number(IntEnum):
    """What a message says."""

    OPEN = 1
    ANSWER = 2
    CLIENT_KNOWS = 3
    SERVER_KNOWS = 4
    READY = 5
    WRITTEN = 6
    NOT_WRITTEN = 7
    REFUSED = 8


class Reason(IntEnum):
    """Why the server refuses to go on."""

    WRONG_CODE = 1
    BUSY = 2
    OTHER_VERSION = 3


class OtherVersion(BadPacket):
    """A message of another version of this protocol."""

    def __init__(self) -> None:
        super().__init__("other pairing version")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `reason`: that of a REFUSED, else 0."""

    number: Number
    body: bytes
    reason: int = 0

    @classmethod
    def refused(cls, reason: Reason, tries_left: int = 0) -> Message:
        """Make a REFUSED."""
        return cls(Number.REFUSED, bytes([tries_left]).ljust(32, b"\0"), reason)

    @property
    def tries_left(self) -> int:
        """How many tries a REFUSED leaves."""
        return self.body[0]

    def pack(self) -> bytes:
        """Return the message's bytes."""
        return _layout.pack(TYPE, VERSION, self.number, self.reason, self.body)

    @classmethod
    def parse(cls, frame: Buffer) -> Message:
        """Parse a message. Untrusted bytes: raises BadPacket, and OtherVersion for one of another version."""
        if len(frame) < 2 or frame[0] != TYPE:
            raise BadPacket("no pairing message")
        if frame[1] != VERSION:
            raise OtherVersion
        if len(frame) != SIZE:
            raise BadPacket("bad pairing message")
        _, _, number, reason, body = _layout.unpack(frame)
        try:
            return cls(Number(number), body, reason)
        except ValueError:
            raise BadPacket("bad pairing message") from None
