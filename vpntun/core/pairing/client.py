"""The client's side of a pairing: one exchange with the server, for one code that somebody has typed."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TypeAlias

from vpntun.core.pairing.messages import Message, Number
from vpntun.crypto.pairing import PairingCode, PairingKeys
from vpntun.errors import BadPacket
from vpntun.wire.message import Buffer


@dataclass(frozen=True, slots=True)
class Prove:
    """Send the proof that this end knows the code. Whoever answered can test one guess of the code with it."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Agreed:
    """Prepare the key file with this secret, then send `ready`. The server has proven that it knows the code."""

    secret: bytes = field(repr=False)
    ready: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """Give up this exchange, as the server said; nobody has proven that it was the server. No key was made."""

    reason: int
    tries_left: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Give the key file its name if the server has written its own; otherwise leave no file."""

    is_written: bool


Event: TypeAlias = Prove | Agreed | Refused | Settled


class PairingClient:
    """One exchange. `first`: the message that opens it."""

    def __init__(self, code: PairingCode) -> None:
        self._exchange = code.begin()
        self._keys: PairingKeys | None = None
        self._awaited = {Number.ANSWER, Number.REFUSED}
        self.first = Message(Number.OPEN, self._exchange.element).pack()

    def receive(self, frame: Buffer) -> Event:
        """Return what follows from a message of the server. Untrusted bytes: raises BadPacket."""
        message = Message.parse(frame)
        if message.number not in self._awaited:
            raise BadPacket("pairing out of order")
        if message.number is Number.REFUSED:
            return Refused(message.reason, message.tries_left)
        if message.number is Number.ANSWER:
            self._keys = self._exchange.finish(message.body)
            self._awaited = {Number.SERVER_KNOWS, Number.REFUSED}
            return Prove(self._proven(Number.CLIENT_KNOWS))
        if self._keys is None or not hmac.compare_digest(message.body, self._keys.proof(message.number)):
            raise BadPacket("wrong proof")
        if message.number is Number.SERVER_KNOWS:
            self._awaited = {Number.WRITTEN, Number.NOT_WRITTEN}
            return Agreed(self._keys.shared_key, self._proven(Number.READY))
        return Settled(message.number is Number.WRITTEN)

    def _proven(self, number: Number) -> bytes:
        assert self._keys is not None
        return Message(number, self._keys.proof(number)).pack()
