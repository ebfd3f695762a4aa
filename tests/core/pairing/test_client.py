"""The client's decisions: it believes nobody who has not proven to know the code."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.pairing.test_server import NOW, OF_CLIENT, OF_SERVER, WRONG, opened, reply
from vpntun.core.pairing.client import Agreed, PairingClient, Prove, Refused, Settled
from vpntun.core.pairing.messages import TYPE, VERSION, Message, Number, OtherVersion, Reason
from vpntun.core.pairing.server import PairingServer, Reply, WriteKey
from vpntun.errors import BadPacket


@pytest.fixture
def server() -> PairingServer:
    return PairingServer(OF_SERVER, NOW)


def test_a_server_with_the_same_code_is_believed(server: PairingServer) -> None:
    client, proof = opened(server, "a")
    said = client.receive(reply(server.receive("a", proof, NOW)).pack())
    assert isinstance(said, Agreed)
    assert Message.parse(said.ready).number is Number.READY
    assert len(said.secret) == 32


def test_a_wrong_code_is_refused_with_the_tries_that_are_left(server: PairingServer) -> None:
    client, proof = opened(server, "a", WRONG)
    assert client.receive(reply(server.receive("a", proof, NOW)[1:]).pack()) == Refused(Reason.WRONG_CODE, 2)


def test_a_false_server_cannot_prove_that_it_has_the_code(server: PairingServer) -> None:
    client, _ = opened(server, "a")
    with pytest.raises(BadPacket, match="wrong proof"):
        client.receive(Message(Number.SERVER_KNOWS, bytes(32)).pack())


def test_the_clients_own_proof_sent_back_proves_nothing(server: PairingServer) -> None:
    client, proof = opened(server, "a")
    with pytest.raises(BadPacket, match="wrong proof"):
        client.receive(Message(Number.SERVER_KNOWS, Message.parse(proof).body).pack())


@pytest.mark.parametrize("number", [Number.WRITTEN, Number.NOT_WRITTEN])
def test_the_end_of_a_pairing_needs_a_proof(server: PairingServer, number: Number) -> None:
    client, proof = opened(server, "a")
    client.receive(reply(server.receive("a", proof, NOW)).pack())
    with pytest.raises(BadPacket, match="wrong proof"):
        client.receive(Message(number, bytes(32)).pack())


def test_once_both_ends_agree_a_refusal_which_anybody_can_send_is_not_believed(server: PairingServer) -> None:
    client, proof = opened(server, "a")
    client.receive(reply(server.receive("a", proof, NOW)).pack())
    with pytest.raises(BadPacket, match="out of order"):
        client.receive(Message.refused(Reason.WRONG_CODE, 2).pack())


def test_the_server_is_believed_even_if_a_false_word_came_before_its_own(server: PairingServer) -> None:
    client, proof = opened(server, "a")
    said = client.receive(reply(server.receive("a", proof, NOW)).pack())
    assert isinstance(said, Agreed)
    with pytest.raises(BadPacket):
        client.receive(Message(Number.NOT_WRITTEN, bytes(32)).pack())
    server.receive("a", said.ready, NOW)
    assert client.receive(reply(server.written(True)).pack()) == Settled(True)


@pytest.mark.parametrize("number", sorted(set(Number) - {Number.ANSWER, Number.REFUSED}))
def test_only_an_answer_or_a_refusal_can_come_first(number: Number) -> None:
    with pytest.raises(BadPacket, match="out of order"):
        PairingClient(OF_CLIENT).receive(Message(number, bytes(32)).pack())


def test_another_version_is_recognised() -> None:
    with pytest.raises(OtherVersion):
        PairingClient(OF_CLIENT).receive(bytes([TYPE, VERSION + 1]) + bytes(34))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(0, 32 * 8 - 1))
def test_one_bit_that_somebody_between_changes_ends_the_pairing(at: int, bit: int) -> None:
    """Pass messages on between both ends, and change a bit in the body of message number `at`, counted from 0."""
    server, client, secrets = PairingServer(OF_SERVER, NOW), PairingClient(OF_CLIENT), set()
    sent, outcome = client.first, None
    for number in (0, 2, 4):
        events = server.receive("a", changed(sent, bit) if at == number else sent, NOW)
        if isinstance(events[0], WriteKey):
            secrets.add(events[0].secret)
            events = server.written(True)
        replies = [event.message for event in events if isinstance(event, Reply)]
        if not replies:
            break
        try:
            outcome = client.receive(changed(replies[0], bit) if at == number + 1 else replies[0])
        except BadPacket:
            break
        if not isinstance(outcome, Prove | Agreed):
            break
        sent = outcome.message if isinstance(outcome, Prove) else outcome.ready
    assert not isinstance(outcome, Settled)
    assert len(secrets) == (1 if at == 5 else 0)


def changed(message: bytes, bit: int) -> bytes:
    body = bytearray(message)
    body[4 + bit // 8] ^= 1 << bit % 8
    return bytes(body)


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(lambda body: Message(Number.ANSWER, body).pack())
)
def test_arbitrary_answers_raise_bad_packet_alone_and_agree_on_nothing(received: bytes) -> None:
    try:
        event = PairingClient(OF_CLIENT).receive(received)
    except BadPacket:
        return
    assert not isinstance(event, Agreed | Settled)


def test_no_secret_is_shown() -> None:
    assert repr(b"secret") not in repr(Agreed(b"secret", b"secret"))
