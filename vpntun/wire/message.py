"""WireGuard's four message types: layout, parsing and packing.

A legal message has a known type, zero reserved bytes and a legal size.

    type             size    fields (offset, length where it is not 4; integers little endian)
    1  initiation     148    sender 4, ephemeral 8 (32), static 40 (48), timestamp 88 (28), mac1 116 (16), mac2 132 (16)
    2  response        92    sender 4, receiver 8, ephemeral 12 (32), empty 44 (16), mac1 60 (16), mac2 76 (16)
    3  cookie reply    64    receiver 4, nonce 8 (24), cookie 32 (32)
    4  data         >= 32    receiver 4, counter 8 (8), ciphertext and tag from 16

Byte 0 is the type and bytes 1-3 are reserved; together they form one little-endian word. mac1 covers all bytes before
mac1, and mac2 all bytes before mac2. Layouts: the WireGuard paper, sections 5.4.2 to 5.4.7.

Everything here handles untrusted bytes: the parsers raise only BadPacket.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from vpntun.errors import BadPacket

Buffer: TypeAlias = bytes | bytearray | memoryview

INITIATION, RESPONSE, COOKIE_REPLY, DATA = 1, 2, 3, 4
HANDSHAKE_TOS = 0x88
"""TOS byte of the packets that carry the first three, as in WireGuard: DSCP AF41."""

INITIATION_SIZE = 148
RESPONSE_SIZE = 92
COOKIE_REPLY_SIZE = 64
HEADER_SIZE = 16
TAG_SIZE = 16
DATA_OVERHEAD = HEADER_SIZE + TAG_SIZE
SMALLEST = DATA_OVERHEAD
LARGEST = 65535

DATA_HEADER = struct.Struct("<IIQ")
"""The header of a data message: type and reserved bytes as one word, receiver, counter."""

_INITIATION = struct.Struct("<II32s48s28s16s16s")
_RESPONSE = struct.Struct("<III32s16s16s16s")
_COOKIE_REPLY = struct.Struct("<II24s32s")
_WORD = struct.Struct("<I")

_ONE_SIZE = {INITIATION: INITIATION_SIZE, RESPONSE: RESPONSE_SIZE, COOKIE_REPLY: COOKIE_REPLY_SIZE}
_OFFSET_OF_RECEIVER = {RESPONSE: 8, COOKIE_REPLY: 4, DATA: 4}
_OFFSET_OF_SENDER = 4


def kind_of(message: Buffer) -> int:
    """The type, 1 to 4, of a message whose type, reserved bytes and size are legal.

    Raises BadPacket: "bad size" (also if it is too short to have a type), "bad type" or "bad reserved".
    """
    size = len(message)
    if size < 4:
        raise BadPacket("bad size")
    kind = message[0]
    if not INITIATION <= kind <= DATA:
        raise BadPacket("bad type")
    if message[1] or message[2] or message[3]:
        raise BadPacket("bad reserved")
    if kind == DATA:
        if not SMALLEST <= size <= LARGEST:
            raise BadPacket("bad size")
    elif size != _ONE_SIZE[kind]:
        raise BadPacket("bad size")
    return kind


def receiver_of(message: Buffer) -> int:
    """The receiver's session index (32 bits) in a response, a cookie reply or a data message.

    It does not look at the reserved bytes, so it accepts the pieces of a burst too. Raises BadPacket: "bad size" if the
    message ends before its index, "bad type" for a type of message without one.
    """
    if not message:
        raise BadPacket("bad size")
    offset = _OFFSET_OF_RECEIVER.get(message[0])
    if offset is None:
        raise BadPacket("bad type")
    if len(message) < offset + 4:
        raise BadPacket("bad size")
    receiver: int = _WORD.unpack_from(message, offset)[0]
    return receiver


def sender_of(message: Buffer) -> int:
    """The sender's index (32 bits) in an initiation or a response, whose size was checked."""
    sender: int = _WORD.unpack_from(message, _OFFSET_OF_SENDER)[0]
    return sender


@dataclass(frozen=True, slots=True)
class Initiation:
    """Message type 1: ephemeral 32 bytes, static 48, timestamp 28 (the last two sealed), mac1 and mac2 16 each."""

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes
    mac2: bytes

    @classmethod
    def parse(cls, message: Buffer) -> Initiation:
        """Parse 148 bytes. Raises BadPacket as `kind_of` does, and "bad type" for another type of message."""
        _require(INITIATION, message)
        return cls(*_INITIATION.unpack(message)[1:])

    def pack(self) -> bytes:
        """The message's 148 bytes."""
        return _INITIATION.pack(
            INITIATION, self.sender, self.ephemeral, self.static, self.timestamp, self.mac1, self.mac2
        )


@dataclass(frozen=True, slots=True)
class Response:
    """Message type 2: ephemeral 32 bytes, empty 16 (only a tag), mac1 and mac2 16 each."""

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes
    mac1: bytes
    mac2: bytes

    @classmethod
    def parse(cls, message: Buffer) -> Response:
        """Parse 92 bytes. Raises BadPacket as `kind_of` does, and "bad type" for another type of message."""
        _require(RESPONSE, message)
        return cls(*_RESPONSE.unpack(message)[1:])

    def pack(self) -> bytes:
        """The message's 92 bytes."""
        return _RESPONSE.pack(RESPONSE, self.sender, self.receiver, self.ephemeral, self.empty, self.mac1, self.mac2)


@dataclass(frozen=True, slots=True)
class CookieReply:
    """Message type 3: nonce 24 bytes, cookie 32 (a cookie of 16 bytes, sealed)."""

    receiver: int
    nonce: bytes
    cookie: bytes

    @classmethod
    def parse(cls, message: Buffer) -> CookieReply:
        """Parse 64 bytes. Raises BadPacket as `kind_of` does, and "bad type" for another type of message."""
        _require(COOKIE_REPLY, message)
        return cls(*_COOKIE_REPLY.unpack(message)[1:])

    def pack(self) -> bytes:
        """The message's 64 bytes."""
        return _COOKIE_REPLY.pack(COOKIE_REPLY, self.receiver, self.nonce, self.cookie)


def _require(kind: int, message: Buffer) -> None:
    if kind_of(message) != kind:
        raise BadPacket("bad type")
