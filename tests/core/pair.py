"""Two peers on fixed endpoints, without carrier selection. The test passes each message from one to the other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from random import Random

import pytest

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import (
    Event,
    Transmit,
)
from vpntun.core.wireguard.node import Node
from vpntun.core.wireguard.peer import Peer
from vpntun.crypto.keys import KeyPair, clamp
from vpntun.crypto.noise import mac1_key
from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.wire.message import DATA, DATA_HEADER, DATA_OVERHEAD, kind_of
from vpntun.wire.record import (
    BUNDLE_START,
    ENTRY_SIZE,
    SMALLEST_PACKET,
    append,
    begin_bundle,
)

CLIENT_KEYS = KeyPair.of(clamp(b"c" * 32))
SERVER_KEYS = KeyPair.of(clamp(b"s" * 32))
STRANGER_KEYS = KeyPair.of(clamp(b"x" * 32))
PSK = b"p" * 32

AT_LEFT = FakeEndpoint("left")
AT_RIGHT = FakeEndpoint("right")
ELSEWHERE = FakeEndpoint("elsewhere")


def refusal(side: Side, message: bytes, source: Endpoint, now: float) -> str:
    """Assert that a message is dropped, and return the reason."""
    with pytest.raises(BadPacket) as caught:
        side.take(message, source, now)
    return caught.value.reason


def sent(events: Iterable[Event]) -> list[bytes]:
    """The messages that these events transmit."""
    return [event.message for event in events if isinstance(event, Transmit)]


def only(events: Iterable[Event]) -> bytes:
    """The only message that these events transmit."""
    (message,) = sent(events)
    return message


def with_mac1(message: bytes, recipient: bytes) -> bytes:
    """A handshake message with a valid mac1, whatever else is wrong with it."""
    covered = message[:-32]
    return covered + hashlib.blake2s(covered, key=mac1_key(recipient), digest_size=16).digest() + bytes(16)


class Side:
    """One end: a node that knows one peer."""

    def __init__(
        self,
        own: KeyPair,
        other: bytes,
        rng: Random,
        *,
        psk: bytes = PSK,
        timestamps: FakeTimestamps | None = None,
        keepalive: float = 0.0,
        chooses_carrier: bool = False,
        may_be_at: Callable[[Endpoint], bool] = lambda endpoint: True,
    ) -> None:
        self.node = Node(own)
        self.received: list[bytes] = []
        self.peer = Peer(
            own,
            other,
            psk,
            self.node.indices,
            timestamps or FakeTimestamps(),
            rng,
            keepalive=keepalive,
            chooses_carrier=chooses_carrier,
            may_be_at=may_be_at,
        )
        self.node.add(self.peer)

    def take(self, message: bytes, source: Endpoint, now: float) -> list[Event]:
        """Process a received message. Raises BadPacket."""
        if kind_of(message) != DATA:
            return self.node.receive_handshake(message, source, now)[1]
        held = self.node.session_for(message, now)
        buffer = memoryview(bytearray(len(message)))
        size = held.session.open_into(message, buffer)
        return self._opened(held.session, DATA_HEADER.unpack_from(message)[2], buffer[:size], source, now)

    def _opened(
        self, session: Session, counter: int, plaintext: memoryview, source: Endpoint, now: float
    ) -> list[Event]:
        if plaintext:
            self.received.append(bytes(plaintext))
        return self.peer.opened(session, counter, source, now, keepalive=not plaintext)

    def data(self, text: bytes, now: float) -> bytes:
        """Seal a packet with the current session, which must exist."""
        session = self.peer.sending_session(now)
        assert session is not None
        message = seal(session, text)
        self.peer.timers.data_sent(now)
        return message

    def current(self) -> Session:
        """The current session, which must exist."""
        session = self.peer.keys.current
        assert session is not None
        return session


def seal(session: Session, text: bytes) -> bytes:
    """Seal a plaintext into a data message."""
    message = bytearray(len(text) + DATA_OVERHEAD)
    session.seal_into(text, memoryview(message))
    return bytes(message)


def bundle(packet: bytes) -> bytes:
    """Make a record of one packet, padded to the length of the smallest IP packet."""
    filled = packet.ljust(SMALLEST_PACKET, b"\0")
    record = bytearray(len(filled) + BUNDLE_START + ENTRY_SIZE)
    append(record, begin_bundle(record), filled, 0)
    return bytes(record)


class Pair:
    """Two sides, left and right, at `now`. Neither chooses carriers."""

    def __init__(self, *, left_psk: bytes = PSK, keepalive: float = 0.0) -> None:
        self.now = 1000.0
        self.rng = Random(7)
        self.left = Side(CLIENT_KEYS, SERVER_KEYS.public, self.rng, psk=left_psk, keepalive=keepalive)
        self.right = Side(SERVER_KEYS, CLIENT_KEYS.public, self.rng)
        self.left.peer.endpoint = AT_RIGHT

    def initiation(self, to: Endpoint = AT_RIGHT) -> bytes:
        """Let left make an initiation."""
        return only(self.left.peer.initiate(to, self.now))

    def to_left(self, message: bytes, source: Endpoint = AT_RIGHT) -> list[Event]:
        """Deliver a message to left."""
        return self.left.take(message, source, self.now)

    def to_right(self, message: bytes, source: Endpoint = AT_LEFT) -> list[Event]:
        """Deliver a message to right."""
        return self.right.take(message, source, self.now)

    def confirm(self) -> list[Event]:
        """Confirm the session: deliver a keepalive from left to right."""
        return self.to_right(only(self.left.peer.keepalive(AT_RIGHT, self.now)))

    def shake_hands(self) -> None:
        """Complete a handshake that left initiates, including the confirmation."""
        self.to_left(only(self.to_right(self.initiation())))
        self.confirm()

    def assert_data_flows(self) -> None:
        """Assert that a packet arrives in each direction."""
        self.to_right(self.left.data(b"to the right", self.now))
        assert self.right.received[-1] == b"to the right"
        self.to_left(self.right.data(b"to the left", self.now))
        assert self.left.received[-1] == b"to the left"
