"""Keys: wg(8)'s text form, X25519, and secrets that are never shown."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.crypto.pair import LEFT, LOW_ORDER_POINTS, refusal
from vpntun.crypto import keys
from vpntun.crypto.keys import KeyPair, agree, format_key, parse_key, shortened
from vpntun.errors import ConfigurationError


@given(st.binary(min_size=32, max_size=32))
def test_a_key_is_parsed_from_the_44_characters_of_its_text(key: bytes) -> None:
    text = format_key(key)
    assert len(text) == 44
    assert text == base64.b64encode(key).decode()
    assert parse_key(text) == key
    assert parse_key(f" {text}\n") == key


def test_a_shortened_key_is_its_beginning_of_one_length_everywhere() -> None:
    assert shortened("wMrXQFRw6qFc9Thpn6YEYoCQi9JfPcEMrzUYGL7UEz4=") == "wMrXQFRw6q"


GOOD = base64.b64encode(bytes(range(200, 232))).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        GOOD[:-1],
        GOOD + "=",
        GOOD + GOOD,
        GOOD[:20] + "\n" + GOOD[20:],
        GOOD[:20] + "*" + GOOD[21:],
        GOOD[:20] + "-" + GOOD[21:],
        GOOD[:20] + "é" + GOOD[21:],
        GOOD[:-2] + chr(ord(GOOD[-2]) + 1) + "=",
        base64.b64encode(bytes(31)).decode(),
        base64.b64encode(bytes(33)).decode(),
        "A" * 44,
        bytes(32).hex(),
    ],
)
def test_text_that_wg_would_not_write_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError, match="44 characters") as caught:
        parse_key(text)
    if len(text) > 1:
        assert text not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_key_or_a_configuration_error(text: str) -> None:
    try:
        key = parse_key(text)
    except ConfigurationError:
        return
    assert format_key(key) == text.strip()


def test_two_ends_agree_as_in_rfc_7748_section_6_1() -> None:
    alice = KeyPair.of(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = KeyPair.of(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert alice.public.hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    assert agree(alice.private, bob.public).hex() == agree(bob.private, alice.public).hex() == shared


@pytest.mark.parametrize("point", LOW_ORDER_POINTS, ids=lambda point: point.hex()[:8])
def test_a_low_order_point_is_a_bad_packet(point: bytes) -> None:
    assert refusal(agree, LEFT.private, point) == "low-order point"


def test_new_private_keys_are_clamped_and_all_different() -> None:
    made = {keys.generate_private() for _ in range(50)}
    assert len(made) == 50
    for private in made:
        assert private == keys.clamp(private)
        assert private[0] & 7 == 0
        assert private[31] >> 6 == 1
    assert len(keys.generate_secret()) == 32
    assert keys.generate_secret() != keys.generate_secret()


def test_clamping_does_not_change_the_public_key() -> None:
    scalar = bytes([255]) * 32
    assert keys.public_of(scalar) == keys.public_of(keys.clamp(scalar))


def test_a_pair_shows_its_public_key_only() -> None:
    pair = KeyPair.generate()
    assert pair == KeyPair.of(pair.private)
    assert repr(pair.public) in repr(pair)
    assert repr(pair.private) not in repr(pair)
