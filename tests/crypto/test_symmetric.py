"""Noise's symmetric state, checked with published vectors: KDF, and the whole handshake pattern."""

from __future__ import annotations

import pytest

from tests.crypto.pair import refusal
from tests.crypto.vectors import load
from vpntun.crypto import ikpsk2
from vpntun.crypto.aead import new_aead
from vpntun.crypto.keys import KeyPair
from vpntun.crypto.symmetric import SymmetricState, derive


@pytest.mark.parametrize("vector", load("kdf")["vectors"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_wireguard_go_kdf_vectors(vector: dict[str, str], count: int) -> None:
    derived = derive(bytes.fromhex(vector["key"]), bytes.fromhex(vector["input"]), count)
    assert [key.hex() for key in derived] == list(vector["keys"][:count])


def test_the_published_ikpsk2_handshake_and_its_transport_messages() -> None:
    vector = load("noise_ikpsk2")
    assert vector["name"].encode() == ikpsk2.PROTOCOL_NAME
    payloads = [bytes.fromhex(message["payload"]) for message in vector["messages"]]
    expected = [bytes.fromhex(message["ciphertext"]) for message in vector["messages"]]
    initiator, initiator_ephemeral, responder, responder_ephemeral = (
        KeyPair.of(bytes.fromhex(vector[name]))
        for name in ("init_static", "init_ephemeral", "resp_static", "resp_ephemeral")
    )
    assert responder.public.hex() == vector["init_remote_static"]
    psk = bytes.fromhex(vector["init_psk"])
    prologue = bytes.fromhex(vector["init_prologue"])
    left, right = ikpsk2.start(prologue, responder.public), ikpsk2.start(prologue, responder.public)

    static, payload = ikpsk2.write_first(left, initiator, initiator_ephemeral, responder.public, payloads[0])
    assert initiator_ephemeral.public + static + payload == expected[0]
    assert ikpsk2.read_static(right, responder, initiator_ephemeral.public, static) == initiator.public
    assert ikpsk2.read_first_payload(right, responder, initiator.public, payload) == payloads[0]

    answer = ikpsk2.write_second(
        right, responder_ephemeral, initiator.public, initiator_ephemeral.public, psk, payloads[1]
    )
    assert responder_ephemeral.public + answer == expected[1]
    assert (
        ikpsk2.read_second(left, initiator, initiator_ephemeral, responder_ephemeral.public, psk, answer) == payloads[1]
    )

    assert left.handshake_hash == right.handshake_hash
    assert left.split() == right.split()
    forth, back = (new_aead(key) for key in left.split())
    for number, (plaintext, ciphertext) in enumerate(zip(payloads[2:], expected[2:], strict=True)):
        out = memoryview(bytearray(len(ciphertext)))
        (back if number % 2 else forth).seal_into(number // 2, plaintext, out)
        assert out == ciphertext


def states() -> tuple[SymmetricState, SymmetricState]:
    state = SymmetricState(ikpsk2.PROTOCOL_NAME, b"prologue")
    state.mix_key(b"material")
    return state, state.copy()


def test_several_texts_under_one_key_are_counted() -> None:
    left, right = states()
    for text in (b"one", b"one", b""):
        assert right.decrypt_and_hash(left.encrypt_and_hash(text)) == text
    assert left.handshake_hash == right.handshake_hash


@pytest.mark.parametrize("size", [0, 15, 16, 40])
def test_a_forged_text_is_a_bad_tag(size: int) -> None:
    state, _ = states()
    assert refusal(state.decrypt_and_hash, bytes(size)) == "bad tag"


def test_a_copy_is_independent() -> None:
    state, other = states()
    before = state.handshake_hash
    other.encrypt_and_hash(b"text")
    other.mix_key_and_hash(bytes(32))
    assert state.handshake_hash == before != other.handshake_hash
    assert state.split() != other.split()


def test_sealing_before_the_first_key_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="before its first"):
        SymmetricState(ikpsk2.PROTOCOL_NAME, b"").encrypt_and_hash(b"text")
