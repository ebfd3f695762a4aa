"""Codes and SPAKE2: equal codes give equal keys, other codes other keys, and rubbish is refused as such."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from pathlib import Path

import nacl.bindings as sodium
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vpntun.crypto.pairing import (
    ALPHABET,
    CODE_SIZE,
    PairingCode,
    PairingExchange,
    PairingKeys,
    Role,
    check_element,
    check_installed,
    new_code,
    parse_code,
    shown,
)
from vpntun.errors import BadPacket, ConfigurationError, VpntunError

VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "pairing.json").read_text())
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
M = bytes.fromhex("15cfd18e385952982b6a8f8c7854963b58e34388c8e6dae891db756481a02312")
N = bytes.fromhex("f04f2e7eb734b2a8f8b472eaf9c3c632576ac64aea650b496a8a20ff00e583c3")
EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
"""The y of two elements of order 8."""
times, base = sodium.crypto_scalarmult_ed25519_noclamp, sodium.crypto_scalarmult_ed25519_base_noclamp
codes = st.text(ALPHABET, min_size=CODE_SIZE, max_size=CODE_SIZE)


def keys_of(client_code: str, server_code: str) -> tuple[PairingKeys, PairingKeys]:
    client, server = PairingCode(client_code, "client").begin(), PairingCode(server_code, "server").begin()
    return client.finish(server.element), server.finish(client.element)


def from_vector(role: Role) -> PairingExchange:
    drawn = bytes.fromhex(VECTOR[f"{role} entropy"])
    return PairingCode(VECTOR["code"], role, lambda size: drawn[:size]).begin()


def element(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


def test_new_codes_have_eight_characters_that_look_different_and_no_two_are_equal() -> None:
    made = {new_code() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[0-9A-HJKMNP-TV-Z]{8}", code) for code in made)
    assert len(set("".join(made))) == len(ALPHABET) == 32


@given(codes, st.lists(st.sampled_from(["", " ", "-", "\t"]), min_size=9, max_size=9), st.booleans())
def test_a_code_is_taken_in_either_case_with_blanks_and_hyphens(code: str, between: list[str], is_lower: bool) -> None:
    typed = "".join(gap + character for gap, character in zip(between, [*code, ""], strict=True))
    assert parse_code(typed.lower() if is_lower else typed) == code
    assert parse_code(shown(code)) == code


def test_characters_that_look_alike_are_taken_for_those_of_the_alphabet() -> None:
    assert parse_code("oil1-Li0O") == "01111100"


@pytest.mark.parametrize(
    "typed", ["", "7KQ2-M9X", "7KQ2-M9XDD", "7KQ2-M9XU", "7KQ2.M9XD", "7KQ2-M9XÄ", "\uff17KQ2-M9XD"]
)
def test_texts_that_cannot_be_codes_are_refused_with_an_example(typed: str) -> None:
    with pytest.raises(ConfigurationError, match="such as 7KQ2-M9XD"):
        parse_code(typed)


def test_ends_with_the_same_code_have_the_same_keys_and_other_ones_in_the_next_exchange() -> None:
    client, server = keys_of("7KQ2M9XD", "7KQ2M9XD")
    assert client == server
    assert len({client.shared_key, *(client.proof(number) for number in range(8))}) == 9
    assert keys_of("7KQ2M9XD", "7KQ2M9XD")[0] != client


@settings(max_examples=10, deadline=None)
@given(codes, codes)
def test_ends_with_different_codes_have_different_keys(one: str, other: str) -> None:
    client, server = keys_of(one, other)
    assert (client == server) == (one == other)


def test_two_ends_of_the_same_role_have_different_keys() -> None:
    one, other = PairingCode("7KQ2M9XD", "client").begin(), PairingCode("7KQ2M9XD", "client").begin()
    assert one.finish(other.element) != other.finish(one.element)


def test_libsodium_computes_the_same_keys_by_the_protocol_document() -> None:
    """A second implementation, of docs/protocol.rst, checks the vector."""

    def digest(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    def scalar(drawn: bytes) -> bytes:
        return (int.from_bytes(drawn, "big") % ORDER).to_bytes(32, "little")

    code = VECTOR["code"].encode()
    extracted = hmac.digest(bytes(32), code, "sha256")
    first = hmac.digest(extracted, b"SPAKE2 pw\x01", "sha256")
    w = scalar((first + hmac.digest(extracted, first + b"SPAKE2 pw\x02", "sha256"))[:48])
    x, y = (scalar(bytes.fromhex(VECTOR[f"{role} entropy"])) for role in ("client", "server"))
    sent_x = sodium.crypto_core_ed25519_add(base(x), times(w, M))
    sent_y = sodium.crypto_core_ed25519_add(base(y), times(w, N))
    z = times(x, sodium.crypto_core_ed25519_sub(sent_y, times(w, N)))
    assert z == times(y, sodium.crypto_core_ed25519_sub(sent_x, times(w, M)))
    names = digest(b"vpntun pairing 1 client"), digest(b"vpntun pairing 1 server")
    assert (sent_x.hex(), sent_y.hex()) == (VECTOR["client element"], VECTOR["server element"])
    assert digest(digest(code), *names, sent_x, sent_y, z).hex() == VECTOR["key"]


def test_the_vector_never_changes() -> None:
    client, server = from_vector("client"), from_vector("server")
    keys = client.finish(server.element)
    assert keys == server.finish(client.element)
    assert (client.element.hex(), server.element.hex()) == (VECTOR["client element"], VECTOR["server element"])
    assert keys._key.hex() == VECTOR["key"]
    assert keys.shared_key.hex() == VECTOR["shared key"]
    assert {f"{n}": keys.proof(n).hex() for n in range(3, 8)} == VECTOR["proofs"]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32))
def test_arbitrary_bytes_from_the_other_end_give_keys_or_bad_packet(received: bytes) -> None:
    exchange = PairingCode("7KQ2M9XD", "server").begin()
    try:
        exchange.finish(received)
    except BadPacket as bad:
        assert bad.reason == "bad pairing element"


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [0, 1, FIELD - 1, FIELD, FIELD + 1, FIELD + 18])
def test_elements_of_small_order_and_second_forms_of_an_element_are_refused(y: int, sign: int) -> None:
    with pytest.raises(BadPacket):
        check_element(element(y, sign))
    with pytest.raises(BadPacket):
        PairingCode("7KQ2M9XD", "client").begin().finish(element(y, sign))


@pytest.mark.parametrize("y", [2, 3, FIELD - 2])
def test_points_off_the_curve_or_outside_the_group_are_refused(y: int) -> None:
    check_element(element(y))
    with pytest.raises(BadPacket):
        PairingCode("7KQ2M9XD", "client").begin().finish(element(y))


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [EIGHTH, FIELD - EIGHTH])
def test_elements_of_order_eight_and_sums_with_them_are_refused(y: int, sign: int) -> None:
    torsion = element(y, sign)
    for received in (torsion, sodium.crypto_core_ed25519_add(M, torsion)):
        with pytest.raises(BadPacket):
            PairingCode("7KQ2M9XD", "client").begin().finish(received)


def test_an_exchange_that_gets_its_own_element_back_is_refused() -> None:
    exchange = PairingCode("7KQ2M9XD", "client").begin()
    with pytest.raises(BadPacket):
        exchange.finish(exchange.element)


def test_an_exchange_gives_keys_only_once() -> None:
    exchange, other = PairingCode("7KQ2M9XD", "client").begin(), PairingCode("7KQ2M9XD", "server").begin()
    exchange.finish(other.element)
    with pytest.raises(BadPacket):
        exchange.finish(other.element)


def test_nothing_is_multiplied_with_the_code_after_the_first_moment() -> None:
    code = PairingCode("7KQ2M9XD", "server")
    side = code.begin()._side
    known = dict(side.params.N._multiples)
    assert set(known) == {side.pw_scalar, -side.pw_scalar}
    assert code.begin()._side.params.N is side.params.N


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(PairingKeys(b"secret" * 5))


def test_a_missing_package_is_one_line_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spake2", None)
    for needs in (check_installed, lambda: PairingCode("7KQ2M9XD", "client")):
        with pytest.raises(VpntunError, match=r"pip install spake2"):
            needs()
