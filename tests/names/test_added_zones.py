"""Zones that come as JSON: what is read, what is refused, and how they are listed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import ConfigurationError
from vpntun.names.added_zones import MOST_PATTERNS, MOST_ZONES, AddedZones, parse_zone

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "IP", "regexp"]), inner),
    max_leaves=8,
)


def zone(name: str, *records: dict[str, str], default: str = "") -> bytes:
    return json.dumps({"name": name, "records": list(records), "defaultIP": default}).encode()


@given(
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from(["name", "Records", "defaultIP"]), VALUES).map(
        lambda made: json.dumps(made).encode()
    )
)
def test_any_bytes_are_a_zone_or_refused_as_configuration(body: bytes) -> None:
    try:
        added = parse_zone(body)
    except ConfigurationError as error:
        assert str(error)
    else:
        assert parse_zone(json.dumps(added.as_json()).encode()) == added


def test_a_zone_is_listed_as_it_was_added() -> None:
    zones = AddedZones()
    zones.add(parse_zone(zone("apps.example.", {"name": "a", "ip": "10.9.0.1"}, {"Regexp": "^b", "IP": "fd09::1"})))
    assert zones.as_json() == [
        {
            "Name": "apps.example.",
            "Records": [{"Name": "a", "IP": "10.9.0.1"}, {"Name": "", "IP": "fd09::1", "Regexp": "^b"}],
            "DefaultIP": "",
        }
    ]


def test_a_zone_that_comes_again_keeps_its_records_behind_the_new_ones() -> None:
    zones = AddedZones()
    zones.add(
        parse_zone(zone("x.", {"name": "a", "ip": "10.9.0.1"}, {"name": "b", "ip": "10.9.0.2"}, default="10.9.0.3"))
    )
    zones.add(
        parse_zone(zone("X", {"name": "a", "ip": "10.9.0.4"}, {"name": "a", "ip": "fd09::4"}, default="10.9.0.5"))
    )
    [present] = zones.as_zones()
    assert {name: list(map(str, addresses)) for name, addresses in present.names.items()} == {
        "a": ["10.9.0.4", "fd09::4"],
        "b": ["10.9.0.2"],
    }
    assert list(map(str, present.default)) == ["10.9.0.5"]


def test_a_zone_added_again_and_again_does_not_grow() -> None:
    zones = AddedZones()
    for _ in range(3):
        zones.add(parse_zone(zone("x.", {"name": "a", "ip": "10.9.0.1"}, {"regexp": "b", "ip": "10.9.0.1"})))
    assert len(zones.as_json()[0]["Records"]) == 2


def test_fields_of_later_versions_are_ignored() -> None:
    assert parse_zone(b'{"name": "x", "protected": true, "records": null}') == parse_zone(zone("x."))


def test_there_is_a_limit_to_zones_and_to_expressions() -> None:
    zones = AddedZones()
    for number in range(MOST_ZONES):
        zones.add(parse_zone(zone(f"x{number}.")))
    with pytest.raises(ConfigurationError, match="256 added zones"):
        zones.add(parse_zone(zone("one-more.")))
    many = [{"regexp": f"a{number}", "ip": "10.9.0.1"} for number in range(MOST_PATTERNS + 1)]
    with pytest.raises(ConfigurationError, match="64 regular expressions"):
        AddedZones().add(parse_zone(zone("x.", *many)))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "a zone is a JSON object"),
        (b"[" * 5000, "a zone is a JSON object"),
        (b"[]", "a zone is a JSON object"),
        (b"{}", "a zone needs a name"),
        (b'{"name": "."}', "a zone needs a name"),
        (b'{"name": 1}', "name is a text"),
        (b'{"name": "x", "records": {}}', "the records of a zone are a list"),
        (b'{"name": "x", "records": [1]}', "a record is a JSON object"),
        (b'{"name": "x", "records": [{"name": "a"}]}', "a record has a name or a regexp, and an ip"),
        (b'{"name": "x", "records": [{"ip": "10.9.0.1"}]}', "a record has a name or a regexp, and an ip"),
        (b'{"name": "x", "defaultIP": "10.9"}', "is not an address"),
        (b'{"name": "a b"}', "is not a name in the DNS"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(body: bytes, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_zone(body)
    assert why in str(refused.value)
