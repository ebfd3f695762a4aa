"""Bodies about services: packing and parsing are inverse, and a hostile peer's nonsense raises only BadPacket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.inside.test_request import contents
from vpntun.errors import BadPacket
from vpntun.wire.inside.request import LARGEST_ANSWER, LARGEST_BODY, pack_body, parse_body
from vpntun.wire.inside.services import (
    LONGEST_REASON,
    MOST_OFFERS,
    MOST_PLACES,
    Asked,
    Grant,
    Offer,
    pack_offers,
    parse_offers,
    refusal_in,
)

services = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
names = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=64)
places = st.tuples(st.ip_addresses().map(str), st.integers(1, 65535))
grants = st.builds(
    Grant,
    st.lists(places, min_size=1, max_size=MOST_PLACES).map(tuple),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
)
PARSERS: list[Callable[[Mapping[str, Any]], object]] = [Asked.parse, Grant.parse, parse_offers, refusal_in]


@given(st.builds(Asked, services, names, names) | st.builds(Asked, asker=names))
def test_a_request_is_parsed_as_it_was_packed(asked: Asked) -> None:
    assert Asked.parse(parse_body(pack_body(asked.content()))) == asked


@given(grants)
def test_a_permission_is_parsed_as_it_was_packed(grant: Grant) -> None:
    assert Grant.parse(parse_body(pack_body(grant.content()))) == grant


@given(st.lists(st.builds(Offer, services, names, st.booleans()), max_size=5))
def test_offers_are_parsed_as_they_were_packed(offers: list[Offer]) -> None:
    assert parse_offers(parse_body(pack_body(pack_offers(offers)))) == offers


def test_the_longest_bodies_fit() -> None:
    longest = Offer("s" * 64, "\U0001f642" * 64, True)
    assert len(pack_body(Asked("s" * 64, "p" * 64, "f" * 64).content())) <= LARGEST_BODY
    assert len(pack_body(pack_offers([Offer("s" * 30, "p" * 30, True)] * 1000))) <= LARGEST_ANSWER
    assert parse_offers(pack_offers([longest] * 1000)) == [longest] * MOST_OFFERS


known = st.fixed_dictionaries(
    {},
    optional={
        "ask": st.sampled_from(["list", "visit", 7]),
        "services": st.lists(contents | st.fixed_dictionaries({"service": services, "key": st.booleans()}), max_size=3),
        "places": st.lists(st.lists(st.text() | st.integers() | st.booleans(), max_size=3), max_size=2),
        "token": st.text(max_size=33) | st.just("0" * 32),
        "key": st.booleans() | st.none(),
        **{name: services | st.text(max_size=70) | st.integers() for name in ("service", "peer", "from", "refused")},
    },
)


@given(contents | known)
def test_no_content_raises_anything_but_bad_packet(content: dict[str, Any]) -> None:
    for parse in PARSERS:
        with suppress(BadPacket):
            parse(content)


@pytest.mark.parametrize(
    "place", [["10.9.0.3", 0], ["10.9.0.3", True], ["fe80::1%eth0", 1], ["desk", 1], ["10.9.0.3"], "10.9.0.3:1", [7, 7]]
)
def test_a_place_is_an_address_and_a_port(place: object) -> None:
    with pytest.raises(BadPacket, match="bad services answer"):
        Grant.parse({"places": [place], "token": "0" * 32, "key": False})


def test_a_reason_is_short_and_shows_no_control_characters() -> None:
    assert refusal_in({"refused": "no\x1b[31m\n" + "x" * 1000}) == "no?[31m?" + "x" * (LONGEST_REASON - 8)
    assert refusal_in({"refused": None}) == "None"
    assert refusal_in({}) is None
