"""Both backends of the AEAD: known answers, forgeries, buffers, and agreement with each other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import flipped, refusal
from tests.crypto.vectors import load
from vpntun.crypto import aead
from vpntun.crypto.aead import Aead, OpensslAead, SodiumAead

needs_openssl = pytest.mark.skipif(bool(aead.WHY_NOT_OPENSSL), reason=aead.WHY_NOT_OPENSSL)
both_backends = pytest.mark.parametrize("backend", [SodiumAead, pytest.param(OpensslAead, marks=needs_openssl)])

KEY = bytes(range(32))
COUNTER = 0x0807060504030201


def sealed(cipher: Aead, counter: int, plaintext: bytes, associated: bytes = b"") -> bytes:
    out = memoryview(bytearray(len(plaintext) + 16))
    assert cipher.seal_into(counter, plaintext, out, associated) == len(out)
    return bytes(out)


def opened(cipher: Aead, counter: int, ciphertext: bytes, associated: bytes = b"") -> bytes:
    out = memoryview(bytearray(max(len(ciphertext) - 16, 0)))
    assert cipher.open_into(counter, ciphertext, out, associated) == len(out)
    return bytes(out)


@both_backends
def test_rfc_8439_appendix_a_5(backend: Callable[[bytes], Aead]) -> None:
    vector = {name: bytes.fromhex(text) for name, text in load("aead").items() if name != "source"}
    assert vector["nonce"][:4] == bytes(4)
    counter = int.from_bytes(vector["nonce"][4:], "little")
    cipher = backend(vector["key"])
    ciphertext = vector["ciphertext"] + vector["tag"]
    assert sealed(cipher, counter, vector["plaintext"], vector["associated"]) == ciphertext
    assert opened(cipher, counter, ciphertext, vector["associated"]) == vector["plaintext"]


@both_backends
@pytest.mark.parametrize("size", [0, 1, 1420, 65503])
def test_a_sealed_text_opens_and_is_16_bytes_longer(backend: Callable[[bytes], Aead], size: int) -> None:
    plaintext = bytes(size)
    ciphertext = sealed(backend(KEY), 2**64 - 1, plaintext)
    assert len(ciphertext) == size + 16
    assert opened(backend(KEY), 2**64 - 1, ciphertext) == plaintext


@both_backends
def test_changing_any_byte_the_counter_the_key_or_the_associated_data_is_detected(
    backend: Callable[[bytes], Aead],
) -> None:
    cipher = backend(KEY)
    ciphertext = sealed(cipher, COUNTER, b"hello", b"with")
    for place in range(len(ciphertext)):
        forged = flipped(ciphertext, place)
        assert refusal(opened, cipher, COUNTER, forged, b"with") == "bad tag"
    assert refusal(opened, cipher, COUNTER + 1, ciphertext, b"with") == "bad tag"
    assert refusal(opened, cipher, COUNTER, ciphertext) == "bad tag"
    assert refusal(opened, backend(bytes(32)), COUNTER, ciphertext, b"with") == "bad tag"


@both_backends
@pytest.mark.parametrize("size", range(17))
def test_a_ciphertext_shorter_than_a_tag_is_a_bad_tag(backend: Callable[[bytes], Aead], size: int) -> None:
    assert refusal(opened, backend(KEY), 0, bytes(size)) == "bad tag"


@both_backends
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_is_taken(
    backend: Callable[[bytes], Aead], wrap: Callable[[bytes], bytes | bytearray | memoryview]
) -> None:
    cipher = backend(KEY)
    ciphertext = sealed(cipher, COUNTER, b"hello")
    out = memoryview(bytearray(21))
    cipher.seal_into(COUNTER, wrap(b"hello"), out)
    assert out == ciphertext
    cipher.open_into(COUNTER, wrap(ciphertext), out[:5])
    assert bytes(out[:5]) == b"hello"


@both_backends
def test_sealing_and_opening_in_place_work(backend: Callable[[bytes], Aead]) -> None:
    cipher = backend(KEY)
    plaintext = bytes(range(250)) * 6
    buffer = memoryview(bytearray(plaintext + bytes(16)))
    cipher.seal_into(COUNTER, buffer[: len(plaintext)], buffer)
    assert buffer == sealed(cipher, COUNTER, plaintext)
    cipher.open_into(COUNTER, buffer, buffer[: len(plaintext)])
    assert buffer[: len(plaintext)] == plaintext


@both_backends
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_buffer_of_the_wrong_size_is_an_error_of_the_caller(backend: Callable[[bytes], Aead], wrong: int) -> None:
    cipher = backend(KEY)
    ciphertext = sealed(cipher, COUNTER, b"hello")
    with pytest.raises(ValueError):
        cipher.seal_into(COUNTER, b"hello", memoryview(bytearray(21 + wrong)))
    with pytest.raises(ValueError):
        cipher.open_into(COUNTER, ciphertext, memoryview(bytearray(5 + wrong)))


@needs_openssl
@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.binary(max_size=2000), st.binary(max_size=40))
def test_each_backend_opens_what_the_other_sealed(
    key: bytes, counter: int, plaintext: bytes, associated: bytes
) -> None:
    sodium, openssl = SodiumAead(key), OpensslAead(key)
    ciphertext = sealed(sodium, counter, plaintext, associated)
    assert sealed(openssl, counter, plaintext, associated) == ciphertext
    assert opened(sodium, counter, ciphertext, associated) == plaintext
    assert opened(openssl, counter, ciphertext, associated) == plaintext


@both_backends
@given(data=st.binary(max_size=200), counter=st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_only_ever_raise_bad_packet(
    backend: Callable[[bytes], Aead], data: bytes, counter: int
) -> None:
    assert refusal(opened, backend(KEY), counter, data) == "bad tag"


def test_the_fast_backend_is_used_where_it_works() -> None:
    if aead.WHY_NOT_OPENSSL:
        assert aead.BACKEND == "sodium"
        assert isinstance(aead.new_aead(KEY), SodiumAead)
    else:
        assert aead.BACKEND == "openssl"
        assert isinstance(aead.new_aead(KEY), OpensslAead)


def test_no_backend_shows_its_key() -> None:
    assert repr(KEY) not in repr(SodiumAead(KEY))
