"""Initiations: what one handshake forgets when the next begins, and the cookies of a loaded peer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from tests.core.fakes import FakeEndpoint, FakeTimestamps
from tests.core.pair import CLIENT_KEYS, SERVER_KEYS
from tests.crypto.pair import LOW_ORDER_POINTS
from vpntun.core.endpoint import Endpoint
from vpntun.core.events import Transmit
from vpntun.core.wireguard.indices import Indices
from vpntun.core.wireguard.initiations import Handshake, Initiations
from vpntun.crypto.cookies import CookieChecker, has_mac2
from vpntun.crypto.noise import consume_initiation
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.message import Initiation, sender_of

NOW = 1000.0
HERE = bytes((192, 0, 2, 1, 0xD9, 0x03))
THERE = cast(Endpoint, FakeEndpoint("there"))


@dataclass
class Town:
    public: bytes = SERVER_KEYS.public
    indices: Indices[Any] = field(default_factory=Indices)

    def __post_init__(self) -> None:
        self.initiations = Initiations("the peer", self.public, CLIENT_KEYS, bytes(32), FakeTimestamps(), self.indices)
        self.handshake: Handshake[str] = self.initiations.on["udp"]

    def begin(self, handshake: Handshake[str] | None = None) -> bytes:
        (sent,) = self.initiations.begin(handshake or self.handshake, THERE, NOW)
        assert isinstance(sent, Transmit)
        assert sent.endpoint is THERE
        return sent.message


def test_an_initiation_replaces_the_one_before_it_in_the_same_handshake() -> None:
    town = Town()
    first, second = town.begin(), town.begin()
    assert town.indices.find(sender_of(first)) is None
    assert town.indices.find(sender_of(second)) is town.handshake
    assert first[8:40] != second[8:40], "the ephemeral is another"
    stamps = [consume_initiation(SERVER_KEYS, message).timestamp for message in (first, second)]
    assert stamps == sorted(set(stamps))


def test_handshakes_of_both_carriers_and_the_one_in_return_stay_apart() -> None:
    town = Town()
    all_of_them = [*town.initiations.on.values(), town.initiations.in_return]
    for handshake in all_of_them:
        town.begin(handshake)
    assert len(town.indices) == len(all_of_them) == 3
    town.initiations.drop(town.handshake)
    assert len(town.indices) == 2
    town.initiations.drop_all()
    assert len(town.indices) == 0
    assert all(handshake.sent_at == -NEVER for handshake in all_of_them)


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_a_low_order_public_key_is_sent_nothing_and_leaves_no_index_behind(point: bytes) -> None:
    town = Town(point)
    assert town.initiations.begin(town.handshake, THERE, NOW) == []
    assert town.handshake.initiator is None
    assert len(town.indices) == 0


def test_the_next_message_after_a_cookie_has_a_mac2() -> None:
    town = Town()
    checker = CookieChecker(SERVER_KEYS.public)
    cookie = checker.cookie(HERE, NOW)
    message = town.begin()
    assert Initiation.parse(message).mac2 == bytes(16)
    reply = checker.reply(message, sender_of(message), cookie)
    town.initiations.receive_cookie(reply, THERE, NOW)
    with pytest.raises(BadPacket, match="unasked cookie"):
        town.initiations.receive_cookie(reply, THERE, NOW)
    assert has_mac2(town.begin(), cookie)


def test_the_next_initiation_is_made_with_the_keys_of_then() -> None:
    town = Town()
    town.begin()
    town.initiations.identity = SERVER_KEYS
    with pytest.raises(BadPacket, match="own key"):
        consume_initiation(SERVER_KEYS, town.begin())
