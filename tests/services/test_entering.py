"""The visitor's end of an entrance: it reads not one byte of the service's, and a hostile entrance cannot harm it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machine import HandLoop
from tests.services.town import KEY, LAPTOP, LoopbackSide
from vpntun.crypto.service_proof import prove
from vpntun.services.entering import ADVICE_ON_SILENCE, SECONDS_FOR_PLACE, SECONDS_TO_ENTER, Entering
from vpntun.types import Place
from vpntun.wire.inside.services import NONCE_SIZE, WRONG_KEY, Grant

TOKEN, NONCE = b"t" * 16, b"n" * NONCE_SIZE


class Visitor:
    """A visitor that enters at some places, and what became of it."""

    def __init__(self, loop: HandLoop, *places: Place) -> None:
        self.entered: list[socket.socket] = []
        self.refusals: list[tuple[str, bool]] = []
        grant = Grant(places, TOKEN, True)
        self.entering = Entering(
            loop,
            LoopbackSide(LAPTOP),
            grant,
            "ssh",
            KEY,
            self.entered.append,
            lambda reason, may_be_old: self.refusals.append((reason, may_be_old)),
        )


@contextmanager
def entrance() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        yield listener


def test_a_visitor_shows_token_and_proof_and_leaves_the_services_bytes_alone(loop: HandLoop) -> None:
    with entrance() as listener:
        visitor = Visitor(loop, ("127.0.0.1", 1), listener.getsockname())
        loop.settle()
        with listener.accept()[0] as inside:
            for half in (NONCE[:7], NONCE[7:]):
                inside.send(half)
                loop.settle()
            assert inside.recv(100) == TOKEN + prove(KEY, NONCE, TOKEN, "ssh")
            inside.send(b"\0SSH-2.0-server")
            loop.settle()
            [connection] = visitor.entered
            assert connection.recv(100) == b"SSH-2.0-server"
            connection.close()
    assert visitor.refusals == []


def test_a_verdict_is_explained(loop: HandLoop) -> None:
    with entrance() as listener:
        visitor = Visitor(loop, listener.getsockname())
        loop.settle()
        with listener.accept()[0] as inside:
            inside.send(NONCE + bytes([WRONG_KEY]))
            loop.settle()
    assert visitor.refusals == [("the ServiceKey is not the other end's", False)]


def test_a_closed_port_may_mean_that_the_other_end_was_restarted(loop: HandLoop) -> None:
    visitor = Visitor(loop, ("127.0.0.1", 1))
    loop.settle()
    assert visitor.refusals == [("connecting to 127.0.0.1:1 failed: Connection refused", True)]


def test_a_silent_entrance_is_given_up(loop: HandLoop) -> None:
    with entrance() as listener:
        visitor = Visitor(loop, listener.getsockname())
        loop.settle()
        loop.pass_time(SECONDS_TO_ENTER)
    assert visitor.refusals == [(ADVICE_ON_SILENCE, False)]


def test_a_silent_address_is_followed_by_the_next(loop: HandLoop) -> None:
    with entrance() as silent, entrance() as listener:
        visitor = Visitor(loop, silent.getsockname(), listener.getsockname())
        loop.settle()
        loop.pass_time(SECONDS_FOR_PLACE)
        loop.settle()
        with listener.accept()[0] as inside:
            inside.send(NONCE + b"\0")
            loop.settle()
        loop.pass_time(SECONDS_TO_ENTER)
    assert (len(visitor.entered), visitor.refusals) == (1, [])
    visitor.entered[0].close()


def test_a_visitor_that_gives_up_hears_nothing_more(loop: HandLoop) -> None:
    with entrance() as listener:
        visitor = Visitor(loop, listener.getsockname())
        loop.settle()
        visitor.entering.close()
        with listener.accept()[0] as inside:
            assert inside.recv(1) == b""
        loop.pass_time(SECONDS_TO_ENTER)
    assert (visitor.entered, visitor.refusals) == ([], [])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=3))
def test_whatever_an_entrance_sends_is_a_verdict_or_the_end(pieces: list[bytes]) -> None:
    loop = HandLoop()
    with entrance() as listener:
        visitor = Visitor(loop, listener.getsockname())
        loop.settle(0.005)
        with listener.accept()[0] as inside:
            for piece in pieces:
                try:
                    inside.send(piece)
                except OSError:
                    break
                loop.settle(0.003)
        loop.settle(0.005)
    sent = b"".join(pieces)
    welcome = len(sent) > NONCE_SIZE and not sent[NONCE_SIZE]
    assert (len(visitor.entered), len(visitor.refusals)) == ((1, 0) if welcome else (0, 1))
    for each in visitor.entered:
        each.close()
    loop.close()


@pytest.mark.parametrize("verdict", range(5, 256, 50))
def test_an_unknown_verdict_is_a_refusal(loop: HandLoop, verdict: int) -> None:
    with entrance() as listener:
        visitor = Visitor(loop, listener.getsockname())
        loop.settle()
        with listener.accept()[0] as inside:
            inside.send(NONCE + bytes([verdict]))
            loop.settle()
    assert visitor.refusals == [("it refuses for an unknown reason", False)]
