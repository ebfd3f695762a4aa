"""Proofs of a service's key: made with that key, for one connection, one token and one service."""

from __future__ import annotations

import hashlib

import pytest

from vpntun.crypto.service_proof import NO_PROOF, is_proven, prove

KEY, NONCE, TOKEN = b"k" * 32, b"n" * 32, b"t" * 16


def test_the_proof_is_the_one_that_the_protocol_describes() -> None:
    told = hashlib.blake2s(b"vpntun service 1" + NONCE + TOKEN + b"ssh", key=KEY).digest()
    assert prove(KEY, NONCE, TOKEN, "ssh") == told
    assert is_proven(told, KEY, NONCE, TOKEN, "ssh")


@pytest.mark.parametrize(
    ("key", "nonce", "token", "service"),
    [
        (b"w" * 32, NONCE, TOKEN, "ssh"),
        (KEY, b"m" * 32, TOKEN, "ssh"),
        (KEY, NONCE, b"u" * 16, "ssh"),
        (KEY, NONCE, TOKEN, "web"),
    ],
)
def test_a_proof_for_anything_else_is_refused(key: bytes, nonce: bytes, token: bytes, service: str) -> None:
    assert not is_proven(prove(key, nonce, token, service), KEY, NONCE, TOKEN, "ssh")


def test_nothing_is_proven_without_a_key() -> None:
    assert prove(None, NONCE, TOKEN, "ssh") == NO_PROOF == bytes(32)
    assert not is_proven(NO_PROOF, KEY, NONCE, TOKEN, "ssh")
