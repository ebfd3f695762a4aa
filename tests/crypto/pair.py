"""Two ends for the crypto tests: their keys, a handshake, a pair of sessions, and low-order points."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.noise import Initiator, ReceivedInitiation, SessionKeys, consume_initiation
from vpntun.crypto.session import Session
from vpntun.crypto.timestamp import tai64n
from vpntun.errors import BadPacket

LEFT = KeyPair.of(clamp(b"l" * 32))
RIGHT = KeyPair.of(clamp(b"r" * 32))
PSK = b"p" * 32
STAMP = tai64n(1_700_000_000.5)

LOW_ORDER_POINTS = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
"""Orders 1, 2, 4 and 8 and their other encodings: https://cr.yp.to/ecdh.html, "must I validate"."""


def initiate(sender: int = 1, psk: bytes = PSK) -> tuple[Initiator, bytes]:
    """LEFT's Initiator, and its initiation to RIGHT."""
    initiator = Initiator(LEFT, RIGHT.public, psk)
    return initiator, initiator.initiation(sender, STAMP)


def halfway() -> tuple[Initiator, ReceivedInitiation]:
    """The handshake after LEFT has sent its initiation and RIGHT has consumed it."""
    initiator, message = initiate()
    return initiator, consume_initiation(RIGHT, message)


def shake_hands() -> tuple[SessionKeys, SessionKeys]:
    """The session keys of LEFT and of RIGHT after a handshake."""
    initiator, received = halfway()
    response, right = received.respond(PSK, 2)
    return initiator.consume_response(response), right


def sessions(created: float = 0.0) -> tuple[Session, Session]:
    """LEFT's session, with index 1, and RIGHT's, with index 2."""
    left, right = shake_hands()
    return Session(left, 1, 2, True, created), Session(right, 2, 1, False, created)


def seal(session: Session, plaintext: bytes) -> bytes:
    message = memoryview(bytearray(len(plaintext) + 32))
    assert session.seal_into(plaintext, message) == len(message)
    return bytes(message)


def open_(session: Session, message: bytes) -> bytes:
    plaintext = memoryview(bytearray(max(len(message) - 32, 0)))
    return bytes(plaintext[: session.open_into(message, plaintext)])


def refusal(what: Callable[..., object], *arguments: object) -> str:
    """The reason of the BadPacket that `what(*arguments)` must raise."""
    with pytest.raises(BadPacket) as caught:
        what(*arguments)
    return caught.value.reason


def flipped(message: bytes, place: int) -> bytes:
    """The message with one bit of one byte flipped."""
    return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
