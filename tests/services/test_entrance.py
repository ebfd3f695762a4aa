"""The entrance of services: who shows a good token and proof gets in, and nobody else gets anything but a verdict."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machine import HandLoop, logged
from tests.services.town import DESK, KEY, LoopbackSide, program
from vpntun.config.services import Service
from vpntun.crypto.service_proof import NO_PROOF, prove
from vpntun.forwards.connections import Connections
from vpntun.forwards.ways import Way
from vpntun.services import entrance as module
from vpntun.services.entrance import SECONDS_TO_ENTER, Entrance
from vpntun.services.neighbours import Visitor
from vpntun.services.permissions import LASTS, Permissions
from vpntun.types import Place
from vpntun.wire.inside.services import (
    NONCE_SIZE,
    TARGET_REFUSES,
    TOKEN_SIZE,
    TOO_MANY,
    UNKNOWN_TOKEN,
    WELCOME,
    WRONG_KEY,
)

LAPTOP = Visitor(b"l" * 32, ("laptop",))


@dataclass
class Door:
    """An entrance on the loopback device, and the services behind it."""

    loop: HandLoop
    entrance: Entrance
    permissions: Permissions
    services: dict[str, Service]

    def token(self, service: str = "ssh") -> bytes:
        return self.permissions.give(service, LAPTOP, self.loop.now)

    @contextmanager
    def visitor(self) -> Iterator[tuple[socket.socket, bytes]]:
        """Connect; yield the connection and the nonce."""
        with socket.create_connection(self.entrance.places()[0], timeout=5) as connection:
            self.loop.settle()
            nonce = connection.recv(NONCE_SIZE)
            assert len(nonce) == NONCE_SIZE
            yield connection, nonce

    def answer_to(self, connection: socket.socket, shown: bytes) -> bytes:
        """Show these bytes; return what comes back until the end, or what there is for now."""
        connection.sendall(shown)
        self.loop.settle()
        connection.setblocking(False)
        try:
            return connection.recv(100)
        except BlockingIOError:
            return b"(nothing)"


@pytest.fixture
def door(loop: HandLoop) -> Iterator[Door]:
    with ExitStack() as stack:
        yield new_door(loop, stack)


def new_door(loop: HandLoop, stack: ExitStack, most: int = 2) -> Door:
    permissions = Permissions()
    services: dict[str, Service] = {}
    side = LoopbackSide(DESK)
    way, connections = Way(side, LoopbackSide("127.0.0.1")), Connections(loop, most)
    entrance = Entrance(loop, way, permissions, lambda name, _: services.get(name), connections)
    stack.callback(entrance.close)
    return Door(loop, entrance, permissions, services)


@pytest.fixture
def place(door: Door) -> Iterator[Place]:
    """A program behind the service "ssh"."""
    with program() as (_, found):
        door.services["ssh"] = Service("ssh", found, allowed=("laptop",))
        yield found


def test_bytes_behind_the_proof_are_the_services_own(door: Door) -> None:
    with program() as (listener, found):
        door.services["ssh"] = Service("ssh", found, KEY)
        token = door.token()
        with door.visitor() as (connection, nonce):
            shown = token + prove(KEY, nonce, token, "ssh")
            assert door.answer_to(connection, shown + b"SSH-2.0-early") == bytes([WELCOME])
            inside, _ = listener.accept()
            with inside:
                door.loop.settle()
                assert inside.recv(100) == b"SSH-2.0-early"
                assert door.entrance.counters_of("ssh").connections == 1
    door.loop.settle()
    assert door.entrance.counters_of("ssh").connections == 0


def test_each_refusal_has_its_verdict_and_a_line_in_the_log(door: Door, place: Place) -> None:
    def verdict(token: bytes, proof: bytes) -> bytes:
        with door.visitor() as (connection, _), logged() as lines:
            answer = door.answer_to(connection, token + proof)
            assert connection.recv(1) == b"", "it is closed"
            said.extend(lines)
            return answer

    said: list[str] = []
    assert verdict(bytes(TOKEN_SIZE), NO_PROOF) == bytes([UNKNOWN_TOKEN])
    old = door.token()
    door.loop.pass_time(LASTS)
    assert verdict(old, NO_PROOF) == bytes([UNKNOWN_TOKEN])
    door.services["ssh"] = Service("ssh", place, KEY)
    door.loop.pass_time(10)
    assert verdict(door.token(), NO_PROOF) == bytes([WRONG_KEY])
    assert verdict(door.token(), b"w" * 32) == bytes([WRONG_KEY])
    door.services["ssh"] = Service("ssh", ("127.0.0.1", 1), allowed=("*",))
    assert verdict(door.token(), NO_PROOF) == bytes([TARGET_REFUSES])
    token = door.token()
    door.services.clear()
    assert verdict(token, NO_PROOF) == bytes([UNKNOWN_TOKEN]), "the service was withdrawn"
    assert any("refused laptop the service ssh: the ServiceKey is not" in line for line in said)


def test_too_many_visits_are_refused(door: Door, place: Place) -> None:
    with door.visitor() as (first, _), door.visitor() as (second, _), door.visitor() as (third, _):
        for each in (first, second):
            assert door.answer_to(each, door.token() + NO_PROOF) == bytes([WELCOME])
        assert door.answer_to(third, door.token() + NO_PROOF) == bytes([TOO_MANY])
        assert door.entrance.counters_of("ssh").refused == 1


def test_who_shows_nothing_is_closed_in_time(door: Door, place: Place) -> None:
    with door.visitor() as (connection, _):
        assert door.answer_to(connection, door.token()) == b"(nothing)"
        door.loop.pass_time(SECONDS_TO_ENTER)
        assert connection.recv(1) == b""


def test_strangers_beyond_the_limit_are_reset(door: Door, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_AN_ADDRESS", 1)
    with door.visitor(), socket.create_connection(door.entrance.places()[0], timeout=5) as more:
        door.loop.settle()
        with pytest.raises(ConnectionResetError):
            more.recv(1)


class Sixes(socket.socket):
    """A listener whose clients come from one IPv6 network, each from another address."""

    count = 0

    def accept(self) -> tuple[socket.socket, Any]:
        self.count += 1
        return super().accept()[0], (f"fd09::{self.count}", 7, 0, 0)


def test_a_strangers_many_ipv6_addresses_count_as_one(loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_AN_ADDRESS", 1)
    side: Any = LoopbackSide(DESK)
    (listener,) = side.listen(socket.SOCK_STREAM, "", 0)
    side.listen = lambda *_: [Sixes(fileno=listener.detach())]
    entrance = Entrance(loop, Way(side, side), Permissions(), lambda name, names: None, Connections(loop))
    (place,) = entrance.places()
    with socket.create_connection(place, timeout=5), socket.create_connection(place, timeout=5) as more:
        loop.settle()
        with pytest.raises(ConnectionResetError):
            more.recv(1)
    entrance.close()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.booleans())
def test_no_bytes_of_a_stranger_get_in(pieces: list[bytes], ends: bool) -> None:
    loop = HandLoop()
    with ExitStack() as stack, program() as (listener, found):
        stack.callback(loop.close)
        door = new_door(loop, stack)
        door.services["ssh"] = Service("ssh", found, KEY)
        door.token()
        with socket.create_connection(door.entrance.places()[0], timeout=5) as stranger:
            for piece in pieces:
                try:
                    stranger.send(piece)
                except OSError:
                    break
                loop.poll()
            if ends:
                stranger.close()
            loop.settle(0.005)
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_nothing_listens_once_no_token_is_valid_any_more(door: Door) -> None:
    [place] = door.entrance.places()
    door.loop.pass_time(LASTS / 2)
    assert door.entrance.places() == (place,)
    door.loop.pass_time(LASTS / 2)
    socket.create_connection(place, timeout=5).close()
    door.loop.pass_time(LASTS / 2)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, timeout=5)


def test_an_entrance_that_cannot_listen_raises(loop: HandLoop) -> None:
    side: Any = LoopbackSide(DESK)
    side.error = OSError(99, "no address")
    entrance = Entrance(loop, Way(side, side), Permissions(), lambda name, names: None, Connections(loop))
    with pytest.raises(OSError, match="no address"):
        entrance.places()
