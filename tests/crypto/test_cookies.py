"""Cookies: a sender that receives at its address gets a mac2 that the loaded end accepts, and nobody else does."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import LEFT, PSK, RIGHT, STAMP, flipped
from vpntun.crypto.aead import SodiumAead
from vpntun.crypto.cookies import COOKIE_LASTS, MOST_PATHS, SECRET_LASTS, CookieChecker, CookieJar, has_mac2
from vpntun.crypto.noise import Initiator
from vpntun.errors import BadPacket
from vpntun.wire.message import CookieReply, sender_of

HERE, ELSEWHERE = bytes((192, 0, 2, 1, 0xD9, 0x03)), bytes((192, 0, 2, 2, 0xD9, 0x03))
INDEX = 0xAABBCCDD


def initiation() -> bytes:
    return Initiator(LEFT, RIGHT.public, PSK).initiation(INDEX, STAMP)


def reply_to(checker: CookieChecker, message: bytes, origin: bytes = HERE, now: float = 0.0) -> bytes:
    return checker.reply(message, sender_of(message), checker.cookie(origin, now))


def accepts(checker: CookieChecker, message: bytes, origin: bytes = HERE, now: float = 0.0) -> bool:
    return has_mac2(message, checker.cookie(origin, now))


def refusal(jar: CookieJar, reply: bytes, path: str = "path", now: float = 0.0) -> str:
    with pytest.raises(BadPacket) as caught:
        jar.take(reply, path, now)
    return caught.value.reason


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 (draft-irtf-cfrg-xchacha-03, section 2.2), written for this test alone."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for into, other, mixed, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[into] = state[into] + state[other] & 0xFFFFFFFF
            word = state[mixed] ^ state[into]
            state[mixed] = (word << turn | word >> 32 - turn) & 0xFFFFFFFF

    for _ in range(10):
        for column in range(4):
            quarter(column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            quarter(column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


def test_hchacha20_matches_the_vector_of_the_draft() -> None:
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert hchacha20(key, nonce).hex() == expected


def test_a_sender_uses_the_cookie_of_a_reply_in_its_next_message() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    first = jar.protect(initiation(), "path", 0.0)
    checker.check_mac1(first)
    assert first[-16:] == bytes(16)
    assert not accepts(checker, first)
    jar.take(reply_to(checker, first), "path", 0.0)
    second = initiation()
    protected = jar.protect(second, "path", 5.0)
    assert protected[:-16] == second[:-16]
    assert accepts(checker, protected, now=5.0)


def test_a_reply_and_a_mac2_follow_the_paper() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    message = jar.protect(initiation(), "path", 0.0)
    cookie = checker.cookie(HERE, 0.0)
    assert len(cookie) == 16
    reply = CookieReply.parse(reply_to(checker, message))
    assert reply.receiver == INDEX
    key = hashlib.blake2s(b"cookie--" + RIGHT.public).digest()
    cipher = SodiumAead(hchacha20(key, reply.nonce[:16]))
    opened = memoryview(bytearray(16))
    cipher.open_into(struct.unpack("<Q", reply.nonce[16:])[0], reply.cookie, opened, message[116:132])
    assert opened == cookie
    jar.take(reply.pack(), "path", 0.0)
    protected = jar.protect(initiation(), "path", 0.0)
    assert protected[-16:] == hashlib.blake2s(protected[:-16], key=cookie, digest_size=16).digest()


def test_mac2_from_another_address_or_port_is_not_accepted() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    jar.take(reply_to(checker, jar.protect(initiation(), "path", 0.0)), "path", 0.0)
    message = jar.protect(initiation(), "path", 1.0)
    assert accepts(checker, message)
    assert not accepts(checker, message, ELSEWHERE)
    assert not accepts(checker, message, HERE[:-1] + b"\4")


def test_a_cookie_is_used_for_115_seconds() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    jar.take(reply_to(checker, jar.protect(initiation(), "path", 0.0)), "path", 0.0)
    assert accepts(checker, jar.protect(initiation(), "path", COOKIE_LASTS - 0.01), now=SECRET_LASTS - 0.01)
    assert jar.protect(initiation(), "path", COOKIE_LASTS)[-16:] == bytes(16)


def test_with_a_new_secret_old_cookies_are_not_accepted_and_the_sender_gets_a_new_one() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    checker.cookie(ELSEWHERE, 0.0)  # the secret is made for the first sender
    jar.take(reply_to(checker, jar.protect(initiation(), "path", 100.0), now=100.0), "path", 100.0)
    assert accepts(checker, jar.protect(initiation(), "path", 119.9), now=119.9)
    refused = jar.protect(initiation(), "path", SECRET_LASTS)
    assert not accepts(checker, refused, now=SECRET_LASTS)
    jar.take(reply_to(checker, refused, now=SECRET_LASTS), "path", SECRET_LASTS)
    assert accepts(checker, jar.protect(initiation(), "path", 125.0), now=125.0)


def test_only_one_reply_to_a_message_is_accepted() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    assert refusal(jar, reply_to(checker, initiation())) == "unasked cookie"
    message = jar.protect(initiation(), "path", 0.0)
    reply = reply_to(checker, message)
    jar.take(reply, "path", 0.0)
    assert refusal(jar, reply) == "unasked cookie"
    assert refusal(jar, reply_to(checker, message)) == "unasked cookie"


def test_a_reply_to_an_earlier_message_is_not_accepted() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    reply = reply_to(checker, jar.protect(initiation(), "path", 0.0))
    message = jar.protect(initiation(), "path", 5.0)
    assert refusal(jar, reply) == "bad tag"
    jar.take(reply_to(checker, message), "path", 5.0)


@pytest.mark.parametrize("place", [*range(8, 64, 5), 63])
def test_a_forged_reply_is_refused_and_the_genuine_one_still_comes(place: int) -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    reply = reply_to(checker, jar.protect(initiation(), "path", 0.0))
    assert refusal(jar, flipped(reply, place)) == "bad tag"
    jar.take(reply, "path", 0.0)


def test_a_reply_of_somebody_else_is_refused() -> None:
    jar = CookieJar(RIGHT.public)
    message = jar.protect(initiation(), "path", 0.0)
    assert refusal(jar, reply_to(CookieChecker(LEFT.public), message)) == "bad tag"


def test_each_path_has_its_own_cookie_and_only_the_latest_paths_are_remembered() -> None:
    checker, jar = CookieChecker(RIGHT.public), CookieJar(RIGHT.public)
    for path, origin in (("one", HERE), ("other", ELSEWHERE)):
        jar.take(reply_to(checker, jar.protect(initiation(), path, 0.0), origin), path, 0.0)
    assert accepts(checker, jar.protect(initiation(), "one", 1.0), HERE)
    assert accepts(checker, jar.protect(initiation(), "other", 1.0), ELSEWHERE)
    for number in range(MOST_PATHS - 1):
        jar.protect(initiation(), str(number), 1.0)
    assert jar.protect(initiation(), "other", 1.0)[-16:] != bytes(16)
    assert jar.protect(initiation(), "one", 1.0)[-16:] == bytes(16)


@pytest.mark.parametrize("place", range(0, 132, 7))
def test_a_message_whose_mac1_does_not_match_is_refused(place: int) -> None:
    with pytest.raises(BadPacket, match="bad mac1"):
        CookieChecker(RIGHT.public).check_mac1(flipped(initiation(), place))


def test_mac1_is_that_of_the_recipient() -> None:
    CookieChecker(RIGHT.public).check_mac1(memoryview(initiation()))
    with pytest.raises(BadPacket, match="bad mac1"):
        CookieChecker(LEFT.public).check_mac1(initiation())


@given(st.binary(max_size=200))
def test_nothing_but_bad_packet_is_raised_for_a_reply(reply: bytes) -> None:
    jar = CookieJar(RIGHT.public)
    jar.protect(initiation(), "path", 0.0)
    for message in (reply, (b"\3\0\0\0" + reply).ljust(64, b"\0")[:64]):
        refusal(jar, message)


@given(st.binary(min_size=148, max_size=148), st.binary(min_size=6, max_size=18))
def test_nothing_but_bad_packet_is_raised_for_a_message(message: bytes, origin: bytes) -> None:
    checker = CookieChecker(RIGHT.public)
    with pytest.raises(BadPacket):
        checker.check_mac1(message)
    assert not accepts(checker, message, origin)
