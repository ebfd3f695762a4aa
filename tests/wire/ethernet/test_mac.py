"""MAC addresses: text and bytes are inverse, and an operator learns what is wrong with a bad one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import BadPacket, ConfigurationError
from vpntun.wire.ethernet.frame import check_source
from vpntun.wire.ethernet.mac import derived_mac, mac_text, parse_mac

keys = st.binary(min_size=32, max_size=32)


@given(st.binary(min_size=6, max_size=6), st.booleans(), st.sampled_from(":-"))
def test_a_station_is_read_as_it_is_written_and_whatever_may_send_no_frame_is_refused(
    address: bytes, upper: bool, between: str
) -> None:
    text = address.hex(between)
    try:
        check_source(bytes(6) + address + bytes(2))
    except BadPacket:
        with pytest.raises(ConfigurationError):
            parse_mac(text)
    else:
        assert parse_mac(text.upper() if upper else text) == address
        assert parse_mac(mac_text(address)) == address


def test_an_address_is_shown_with_colons_and_small_letters() -> None:
    assert mac_text(bytes.fromhex("02005e10ab01")) == "02:00:5e:10:ab:01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "02:00:5e:10:00",
        "02:00:5e:10:00:01:02",
        "02:00:5e:10:00:0g",
        "2:0:5e:10:0:1",
        "02005e100001",
        "02:00:5e-10:00:01",
        "02:00:5e:10:00:01\n",
        "٠٢:00:5e:10:00:01",
    ],
)
def test_what_is_no_address_is_refused_with_an_example_of_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is not a MAC address: give .*, such as 02:00:5e:10:00:01"):
        parse_mac(text)


@pytest.mark.parametrize("text", ["01:00:5e:10:00:01", "ff:ff:ff:ff:ff:ff", "33-33-00-00-00-01"])
def test_a_group_is_refused_and_the_address_proposed_instead_is_one(text: str) -> None:
    with pytest.raises(ConfigurationError, match="group of stations") as caught:
        parse_mac(text)
    proposed = str(caught.value).rpartition(" ")[2]
    assert mac_text(parse_mac(proposed)) == proposed


def test_zero_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="belongs to no station: give another one"):
        parse_mac("00:00:00:00:00:00")


@given(st.text("019afAFgG:.- \nß²", max_size=20))
def test_arbitrary_text_is_an_address_or_a_configuration_error(text: str) -> None:
    try:
        assert len(parse_mac(text)) == 6
    except ConfigurationError as error:
        assert re.search("give", str(error))


@given(keys, keys)
def test_a_derived_address_is_a_local_station_and_another_one_for_another_key(one: bytes, other: bytes) -> None:
    address = derived_mac(one)
    assert parse_mac(mac_text(address)) == address
    assert address[0] == 0xFE, "a bridge would take it for its own"
    assert (derived_mac(other) == address) is (one == other)


def test_a_derived_address_never_changes() -> None:
    assert mac_text(derived_mac(bytes(range(32)))) == "fe:52:fa:a2:f1:ef"
