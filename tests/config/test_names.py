"""Settings of the name server: names, records and servers as they are written, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.config.names import (
    NameForward,
    default_domain,
    label_of,
    parse_domain,
    parse_forward_of_names,
    parse_record,
)
from vpntun.errors import ConfigurationError

HOME = "office.internal"


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("laptop", "laptop"),
        ("Anna's Laptop", "anna-s-laptop"),
        ("  --Büro/Köln--  ", "buro-koln"),
        ("desk.office", "desk-office"),
        ("Straße", "strasse"),
        ("東京", ""),
        ("...", ""),
        ("x" * 64, "x" * 63),
        ("x" * 62 + "-y", "x" * 62),
    ],
)
def test_a_peers_name_becomes_a_label(name: str, label: str) -> None:
    assert label_of(name) == label


@given(st.text())
def test_a_label_is_always_one_that_the_dns_can_have(name: str) -> None:
    label = label_of(name)
    assert label == "" or parse_domain(label) == label


def test_a_tunnel_without_a_domain_has_one_of_its_own() -> None:
    assert default_domain("office") == "office.internal"
    assert default_domain("wg_0") == "wg-0.internal"
    assert default_domain("!") == "tunnel.internal"


def test_names_are_kept_in_lower_case_and_without_the_last_dot() -> None:
    assert parse_domain("Office.Internal.") == "office.internal"
    assert parse_domain("bücher.example") == "xn--bcher-kva.example"
    assert parse_domain("_ldap._tcp.example") == "_ldap._tcp.example"


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a.b", "a-.b", "a b", "x" * 64, "a." * 127 + "abc", "a/b", "*.a"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a name in the DNS"):
        parse_domain(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("nas 10.9.0.7 fd00::7", "nas.office.internal 10.9.0.7 fd00::7"),
        ("NAS 10.9.0.7, 10.9.0.8", "nas.office.internal 10.9.0.7 10.9.0.8"),
        ("www.example.org 10.9.0.8", "www.example.org 10.9.0.8"),
        ("*.apps.example 10.9.0.8", "*.apps.example 10.9.0.8"),
        ("* 10.9.0.1", "* 10.9.0.1"),
    ],
)
def test_records_are_read_as_they_are_printed(text: str, written: str) -> None:
    record = parse_record(text, HOME)
    assert str(record) == written
    assert parse_record(written, HOME) == record


@pytest.mark.parametrize("text", ["", "nas", "nas 10.9", "nas fe80::1%eth0", "a*b 10.9.0.1", "nas " + "10.9.0.1 " * 17])
def test_records_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_record(text, HOME)


def test_domains_with_servers_of_their_own_are_read_as_they_are_printed() -> None:
    forward = parse_forward_of_names("Corp.example 10.1.0.53, 10.1.0.54:5353 fd00::53 [fd00::54] [fd00::55]:5353")
    assert forward == NameForward(
        "corp.example",
        (("10.1.0.53", 53), ("10.1.0.54", 5353), ("fd00::53", 53), ("fd00::54", 53), ("fd00::55", 5353)),
    )
    assert parse_forward_of_names(str(forward)) == forward


@pytest.mark.parametrize(
    "text", ["", "corp.example", "corp.example dns.example", "corp.example 10.1.0.53:0", "10.1.0.53"]
)
def test_domains_without_usable_servers_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_forward_of_names(text)


@given(st.text())
def test_any_text_is_read_or_refused_as_configuration(text: str) -> None:
    for parse in (lambda: parse_record(text, HOME), lambda: parse_forward_of_names(text), lambda: parse_domain(text)):
        try:
            parse()
        except ConfigurationError as error:
            assert str(error)
