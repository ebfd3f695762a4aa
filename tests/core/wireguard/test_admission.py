"""Admission of handshake messages: what waits, what gets a cookie reply, and what is refused, with and without load."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.core.fakes import FakeEndpoint
from tests.core.pair import CLIENT_KEYS, SERVER_KEYS, STRANGER_KEYS, with_mac1
from vpntun.core.source_limits import BURST
from vpntun.core.wireguard.admission import LONGEST_WAIT, MANY, MOST_WAITING, Admission
from vpntun.crypto.cookies import CookieJar
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.noise import Initiator, consume_initiation
from vpntun.errors import BadPacket
from vpntun.types import CarrierName
from vpntun.wire.message import COOKIE_REPLY, INITIATION_SIZE, kind_of, receiver_of, sender_of

PSK = bytes(32)


@dataclass(unsafe_hash=True)
class Place(FakeEndpoint):
    """An endpoint with an address of its own."""

    origin: bytes = bytes((192, 0, 2, 1, 0xD9, 0x03))


HERE = Place("here")
THERE = Place("there", origin=bytes((192, 0, 2, 2, 0xD9, 0x03)))


def initiation(number: int = 1, to: KeyPair = SERVER_KEYS) -> bytes:
    return Initiator(CLIENT_KEYS, to.public, PSK).initiation(number, bytes(12))


def response(index: int) -> bytes:
    """A response to the handshake of SERVER_KEYS with this index."""
    asked = Initiator(SERVER_KEYS, CLIENT_KEYS.public, PSK).initiation(index, bytes(12))
    return consume_initiation(CLIENT_KEYS, asked).respond(PSK, 7)[0]


def responses(count: int) -> list[bytes]:
    """Messages that pass for responses to different handshakes, as long as nothing is computed for them."""
    genuine = response(0)
    messages = (genuine[:8] + number.to_bytes(4, "little") + genuine[12:] for number in range(count))
    return [with_mac1(message, SERVER_KEYS.public) for message in messages]


def admit(admission: Admission, message: bytes, source: FakeEndpoint = HERE, now: float = 0.0) -> str:
    """What becomes of a message: "waits", "cookie", or the reason why it is refused."""
    try:
        return "cookie" if admission.admit(SERVER_KEYS, message, source, now) else "waits"
    except BadPacket as bad:
        return bad.reason


def loaded(*, drained: bool = True) -> Admission:
    """An admission that is under load since time 0."""
    admission, message = Admission(), initiation()
    for _ in range(MANY):
        assert admit(admission, message) == "waits"
    if drained:
        drain(admission)
    return admission


def drain(admission: Admission) -> None:
    """Take all messages out of the queue."""
    while admission.next() is not None:
        pass


def with_cookie(admission: Admission, source: Place, now: float = 0.0) -> bytes:
    """An initiation from a sender that has received a cookie at `source`."""
    jar = CookieJar(SERVER_KEYS.public)
    reply = admission.admit(SERVER_KEYS, jar.protect(initiation(), "path", now), source, now)
    jar.take(reply, "path", now)
    return jar.protect(initiation(2), "path", now)


def test_messages_wait_in_the_order_in_which_they_came() -> None:
    admission = Admission()
    messages = [initiation(number) for number in range(3)]
    for message, source in zip(messages, (HERE, THERE, HERE), strict=True):
        assert admit(admission, message, source) == "waits"
    assert len(admission) == 3
    assert [admission.next() for _ in range(4)] == [
        (messages[0], HERE), (messages[1], THERE), (messages[2], HERE), None,
    ]  # fmt: skip


def test_a_waiting_message_is_a_copy_since_the_next_read_overwrites_the_buffer() -> None:
    admission, message = Admission(), initiation()
    buffer = bytearray(message)
    admission.admit(SERVER_KEYS, memoryview(buffer), HERE, 0.0)
    buffer[:] = bytes(len(buffer))
    assert admission.next() == (message, HERE)


def test_without_load_neither_mac2_nor_rates_matter() -> None:
    admission, message = Admission(), initiation()
    for number in range(4 * BURST):
        assert admit(admission, message[:-16] + bytes([number]) * 16) == "waits"
    assert not admission.is_loaded(0.0)


def test_junk_never_waits_and_makes_no_load() -> None:
    admission, message = Admission(), initiation()
    for number in range(2 * MANY):
        assert admit(admission, message[:-32] + number.to_bytes(16, "big") + message[-16:]) == "bad mac1"
    assert admit(admission, initiation(to=STRANGER_KEYS)) == "bad mac1"
    assert len(admission) == 0
    assert not admission.is_loaded(0.0)


def test_a_load_begins_when_many_messages_wait_and_lasts_a_second_more() -> None:
    admission, message = Admission(), initiation()
    for _ in range(MANY - 1):
        admit(admission, message)
    assert not admission.is_loaded(0.0)
    assert admit(admission, message) == "waits"
    assert admission.is_loaded(0.0)
    assert admit(admission, message, now=0.1) == "cookie"
    drain(admission)
    assert admit(admission, message, now=0.999) == "cookie"
    assert admit(admission, message, now=1.0) == "waits"
    assert admission.loads == 1


def test_a_load_begins_when_a_message_has_waited_long_however_few_wait() -> None:
    """On a slow host, where a thousand take longer than a sender waits for its answer."""
    admission, message = Admission(), initiation()
    for number in range(3):
        assert admit(admission, message, now=number * LONGEST_WAIT / 2) == "waits"
    assert not admission.is_loaded(LONGEST_WAIT)
    admission.next()
    assert admit(admission, message, now=LONGEST_WAIT * 1.4) == "waits"
    assert admit(admission, message, now=LONGEST_WAIT * 1.6) == "cookie"
    assert admission.loads == 1
    assert admit(admission, with_cookie(admission, HERE, 1.0), now=1.0) == "waits"
    drain(admission)
    assert admit(admission, message, now=1.99) == "cookie"
    assert admit(admission, message, now=2.01) == "waits"


def test_junk_does_not_begin_a_load_however_long_a_message_waits() -> None:
    admission, message = Admission(), initiation()
    admit(admission, message)
    assert admit(admission, initiation(to=STRANGER_KEYS), now=10.0) == "bad mac1"
    assert not admission.is_loaded(10.0)


def test_a_load_lasts_as_long_as_many_messages_a_second_are_refused() -> None:
    admission, message, now = loaded(), initiation(), 0.0
    for number in range(5 * 2 * MANY):
        now = number / (2 * MANY)
        assert admit(admission, message, now=now) == "cookie"
    assert admission.loads == 1
    assert len(admission) == 0
    assert admit(admission, message, now=now + 1.0) == "waits"


def test_a_load_ends_when_few_messages_a_second_are_refused() -> None:
    admission, message = loaded(), initiation()
    said = []
    for number in range(1000):
        said.append(admit(admission, message, now=number / 500))
        drain(admission)
    assert said.count("cookie") == 500


def test_under_load_a_reply_goes_to_the_senders_index_and_a_valid_mac2_gets_in() -> None:
    admission = loaded()
    reply = admission.admit(SERVER_KEYS, initiation(77), HERE, 0.0)
    assert (kind_of(reply), receiver_of(reply)) == (COOKIE_REPLY, 77)
    assert len(reply) < INITIATION_SIZE
    message = with_cookie(admission, HERE)
    assert admit(admission, message) == "waits"
    assert admission.next() == (message, HERE)


def test_under_load_mac2_from_another_address_gets_a_cookie_of_its_own() -> None:
    admission = loaded()
    message = with_cookie(admission, HERE)
    assert admit(admission, message, THERE) == "cookie"
    assert admit(admission, message, HERE) == "waits"


def test_under_load_junk_gets_no_reply() -> None:
    message = initiation()
    assert admit(loaded(), message[:120] + bytes(4) + message[124:]) == "bad mac1"


def test_under_load_each_address_with_a_cookie_is_limited() -> None:
    admission = loaded()
    here, there = with_cookie(admission, HERE), with_cookie(admission, THERE)
    said = [admit(admission, here) for _ in range(BURST + 3)]
    assert said == ["waits"] * BURST + ["too many handshakes"] * 3
    assert admit(admission, there, THERE) == "waits"
    assert admit(admission, here, now=0.06) == "waits"


def test_a_flood_with_cookies_prolongs_the_load_too() -> None:
    admission = loaded()
    message = with_cookie(admission, HERE)
    for number in range(4 * MANY):
        admit(admission, message, now=number / (2 * MANY))
    assert admission.loads == 1
    assert len(admission) <= BURST + 2 * 20 + 1


def test_a_connection_needs_no_cookie_but_its_address_is_limited() -> None:
    carrier: CarrierName = "tcp"
    admission, connection = loaded(), Place("connection", carrier)
    said = [admit(admission, initiation(), connection) for _ in range(BURST + 1)]
    assert said == ["waits"] * BURST + ["too many handshakes"]


def test_the_first_response_to_a_handshake_of_this_end_needs_no_cookie() -> None:
    admission, awaited = loaded(), response(5)
    assert admit(admission, awaited) == "waits"
    assert admit(admission, awaited) == "cookie"
    assert admission.next() == (awaited, HERE)
    assert admit(admission, awaited) == "waits"


def test_a_response_needs_a_cookie_as_long_as_a_copy_of_it_waits() -> None:
    admission, awaited = Admission(), response(5)
    for _ in range(3):
        assert admit(admission, awaited) == "waits"
    for other in responses(MANY + 6)[6:]:
        admit(admission, other)
    assert admission.is_loaded(0.0)
    for _ in range(2):
        assert admission.next() == (awaited, HERE)
        assert admit(admission, awaited) == "cookie"
    assert admission.next() == (awaited, HERE)
    assert admit(admission, awaited) == "waits"


def test_the_responses_of_many_peers_that_this_end_asks_after_its_start_need_no_cookies() -> None:
    admission = Admission()
    assert {admit(admission, message) for message in responses(2 * MANY)} == {"waits"}
    assert admission.is_loaded(0.0)


def test_a_full_queue_refuses_more() -> None:
    admission = Admission()
    said = [admit(admission, message) for message in responses(MOST_WAITING + 1)]
    assert said == ["waits"] * MOST_WAITING + ["handshake queue full"]
    assert len(admission) == MOST_WAITING


def test_another_identity_has_its_own_macs() -> None:
    admission = Admission()
    assert admit(admission, initiation()) == "waits"
    assert admission.admit(STRANGER_KEYS, initiation(to=STRANGER_KEYS), HERE, 0.0) == b""
    with pytest.raises(BadPacket, match="bad mac1"):
        admission.admit(STRANGER_KEYS, initiation(), HERE, 0.0)


def test_the_reply_to_a_response_goes_to_its_sender() -> None:
    admission, awaited = loaded(), response(5)
    admit(admission, awaited)
    reply = admission.admit(SERVER_KEYS, awaited, HERE, 0.0)
    assert receiver_of(reply) == sender_of(awaited) == 7
