"""A handshake that doctor begins: the response of the right peer, and nothing else, answers it."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from tests.datapath.ends import ALICE, BOB, CAROL, PSK
from vpntun.crypto.cookies import CookieChecker, has_mac2
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import consume_initiation
from vpntun.crypto.timestamp import tai64n
from vpntun.doctor.reach.handshake import Handshake
from vpntun.errors import BadPacket
from vpntun.wire.message import sender_of


def asking(peer: KeyPair = BOB, psk: bytes = PSK) -> Handshake:
    return Handshake(ALICE, peer.public, psk, lambda: tai64n(1700000000.0))


def test_the_response_of_the_peer_gives_a_session() -> None:
    handshake = asking()
    response, keys = consume_initiation(BOB, handshake.initiation(0.0)).respond(PSK, 77)
    session = handshake.take(response, 0.1)
    assert session is not None
    assert session.remote_index == 77
    assert not handshake.is_foreign
    message = memoryview(bytearray(33))
    session.seal_into(b"x", message)
    assert keys.receive


def test_a_response_made_with_another_preshared_key_is_none() -> None:
    handshake = asking()
    response, _ = consume_initiation(BOB, handshake.initiation(0.0)).respond(bytes(32), 77)
    assert handshake.take(response, 0.1) is None
    assert handshake.is_foreign


def test_a_response_to_an_earlier_initiation_is_none() -> None:
    handshake = asking()
    response, _ = consume_initiation(BOB, handshake.initiation(0.0)).respond(PSK, 77)
    handshake.initiation(1.0)
    assert handshake.take(response, 1.1) is None


def test_an_initiation_to_another_key_is_not_understood() -> None:
    with suppress(BadPacket):
        consume_initiation(BOB, asking(CAROL).initiation(0.0))
        raise AssertionError("it was understood")


def test_a_cookie_goes_into_the_next_initiation() -> None:
    handshake, checker = asking(), CookieChecker(BOB.public)
    initiation = handshake.initiation(0.0)
    cookie = checker.cookie(b"the address", 0.0)
    assert handshake.take(checker.reply(initiation, sender_of(initiation), cookie), 0.1) is None
    assert (handshake.is_loaded, handshake.is_foreign) == (True, False)
    assert has_mac2(handshake.initiation(0.2), cookie)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0", b"\4\0\0\0"]))
def test_whatever_comes_nothing_is_raised(junk: bytes, begin: bytes) -> None:
    handshake = asking()
    handshake.initiation(0.0)
    assert handshake.take(begin + junk, 0.1) is None
    assert handshake.is_foreign
