"""The server's side of a pairing: one code, three tries, ten minutes, and many callers, of which one may be the client.

A try is a wrong proof of a client. Callers that say nothing, break off or send rubbish cost none: before its proof a
caller has learned nothing about the code, and the server has computed little.

The first caller with a right proof claims the pairing for ten seconds. Meanwhile all other proofs are refused unread:
no second caller is told the same, and wrong codes cannot end the pairing while its client makes ready. The client may
send READY over another connection, if its first one was lost.
"""

from __future__ import annotations

import hmac
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeAlias

from vpntun.core.pairing.messages import Message, Number, OtherVersion, Reason
from vpntun.crypto.pairing import PairingCode, PairingExchange, PairingKeys
from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer

MOST_TRIES = 3
SECONDS_OF_CODE = 600.0
SECONDS_OF_CLAIM = 10.0

Caller: TypeAlias = Hashable
"""A caller's connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Send a message to the caller."""

    message: bytes


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the caller's connection."""


@dataclass(frozen=True, slots=True)
class WrongCode:
    """Tell the operator that the caller had a wrong code, and how many tries are left."""

    tries_left: int


@dataclass(frozen=True, slots=True)
class WriteKey:
    """Write the key file; then call `written`, and send what it returns."""

    secret: bytes = field(repr=False)


Event: TypeAlias = Reply | HangUp | WrongCode | WriteKey


class PairingServer:
    """Decisions of the server for all its callers."""

    def __init__(self, code: PairingCode, now: float) -> None:
        self._code = code
        self._ends_at = now + SECONDS_OF_CODE
        self._claimed_until = now
        self._tries_left = MOST_TRIES
        self._begun: dict[Caller, tuple[PairingExchange, bytes]] = {}
        self._keys: PairingKeys | None = None
        self._claimed_by: Caller = None

    @property
    def is_spoiled(self) -> bool:
        """Whether the code had its three tries."""
        return self._tries_left == 0

    @property
    def deadline(self) -> float:
        """When the code ends: after ten minutes, or a little later if a client was just proven right."""
        return max(self._ends_at, self._claimed_until)

    @property
    def has_agreed(self) -> bool:
        """Whether a client has proven that it knows the code."""
        return self._keys is not None

    def receive(self, caller: Caller, frame: Buffer, now: float) -> list[Event]:
        """Return what follows from a message. Untrusted bytes."""
        try:
            if self.is_spoiled or now >= self.deadline:
                raise BadPacket("pairing over")
            return self._answer(caller, Message.parse(frame), now)
        except OtherVersion:
            return [_reply(Message.refused(Reason.OTHER_VERSION)), HangUp()]
        except BadPacket:
            return [HangUp()]

    def gone(self, caller: Caller) -> bool:
        """Forget a caller whose connection has closed. Return whether it is the one that had the right code."""
        self._begun.pop(caller, None)
        return self._keys is not None and caller == self._claimed_by

    def written(self, success: bool) -> list[Event]:
        """Return what to send once the key file is written, or could not be written."""
        assert self._keys is not None
        number = Number.WRITTEN if success else Number.NOT_WRITTEN
        return [_reply(Message(number, self._keys.proof(number))), HangUp()]

    def _answer(self, caller: Caller, message: Message, now: float) -> list[Event]:
        if message.number is Number.OPEN and caller not in self._begun:
            return self._open(caller, message.body)
        if message.number is Number.CLIENT_KNOWS and caller in self._begun:
            return self._check(caller, message.body, now)
        if message.number is Number.READY and self._keys is not None and _proves(self._keys, message):
            return [WriteKey(self._keys.shared_key)]
        raise BadPacket("pairing out of order")

    def _open(self, caller: Caller, element: bytes) -> list[Event]:
        exchange = self._code.begin()
        self._begun[caller] = exchange, element
        return [_reply(Message(Number.ANSWER, exchange.element))]

    def _check(self, caller: Caller, proof: bytes, now: float) -> list[Event]:
        """Check a client's proof. An element that is none was never a guess of the code, and costs no try."""
        exchange, element = self._begun.pop(caller)
        if now < self._claimed_until:
            return [_reply(Message.refused(Reason.BUSY)), HangUp()]
        keys = exchange.finish(element)
        if not _proves(keys, Message(Number.CLIENT_KNOWS, proof)):
            self._tries_left -= 1
            refusal = Message.refused(Reason.WRONG_CODE, self._tries_left)
            return [WrongCode(self._tries_left), _reply(refusal), HangUp()]
        self._keys, self._claimed_by, self._claimed_until = keys, caller, now + SECONDS_OF_CLAIM
        return [_reply(Message(Number.SERVER_KNOWS, keys.proof(Number.SERVER_KNOWS)))]


def describe_tries(left: int) -> str:
    """Say how many tries are left."""
    return "no try is left" if not left else "one try is left" if left == 1 else f"{left} tries are left"


def _proves(keys: PairingKeys, message: Message) -> bool:
    return hmac.compare_digest(keys.proof(message.number), message.body)


def _reply(message: Message) -> Reply:
    return Reply(message.pack())
