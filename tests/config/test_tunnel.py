"""Checks of a tunnel's settings before anything is opened."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any

import pytest

from vpntun.config.forwards import Forward
from vpntun.config.keys import Keys
from vpntun.config.tunnel import (
    EVERYTHING,
    LARGEST_MTU_OF_TAP,
    Tunnel,
    check_mtu,
    parse_interface,
    parse_network,
    to_one_peer,
)
from vpntun.crypto.keys import KeyPair, clamp, format_key
from vpntun.errors import ConfigurationError
from vpntun.types import LARGEST_MTU

OWN, PEER = KeyPair.of(clamp(b"o" * 32)), KeyPair.of(clamp(b"p" * 32))
SECRET = b"s" * 32
KEYS = Keys(OWN, PEER.public, SECRET)


def tunnel(**changes: Any) -> Tunnel:
    good: dict[str, Any] = {
        "interface": "tun3",
        "host": "192.0.2.1",
        "port": 55555,
        "transport": "auto",
        "keys": KEYS,
        "allowed": EVERYTHING,
        "addresses": (),
        "routes": (),
        "mtu": None,
    }
    return to_one_peer(**{**good, **changes})


def refusal(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        tunnel(**changes)
    return str(caught.value)


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_network, texts))


def interfaces(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_interface, texts))


# The tunnel


def test_a_valid_tunnel_is_accepted() -> None:
    made = tunnel(routes=networks("10.0.0.0/8"), addresses=interfaces("192.168.0.1/24", "fd00::1/64"), mtu=1420)
    assert made.mtu == 1420


@pytest.mark.parametrize("port", [0, -1, 65536, 10**9])
def test_a_number_that_is_not_a_port_is_refused(port: int) -> None:
    assert f"{port} is not a port" in refusal(port=port)


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port_are_ports(port: int) -> None:
    assert tunnel(port=port).peers[0].port == port
    assert tunnel(port=port, host=None).port == port


@pytest.mark.parametrize("mtu", [-1, 0, 1, 68, 575, LARGEST_MTU + 1, 65535, 65536, 10**9])
def test_an_mtu_that_cannot_work_is_refused(mtu: int) -> None:
    assert f"an MTU of {mtu} cannot work" in refusal(mtu=mtu)


@pytest.mark.parametrize("mtu", [576, 1280, 1420, 9000, LARGEST_MTU])
def test_an_mtu_that_works_is_accepted(mtu: int) -> None:
    assert tunnel(mtu=mtu).mtu == mtu


def test_the_largest_mtu_of_a_tap_leaves_room_for_its_frames_header_and_record_in_one_send() -> None:
    check_mtu(LARGEST_MTU_OF_TAP, (), "tap")
    with pytest.raises(ConfigurationError, match="cannot work on a TAP device: it must be 576 to 64000"):
        check_mtu(LARGEST_MTU_OF_TAP + 1, (), "tap")


def test_an_mtu_too_small_for_ipv6_is_refused_only_with_an_ipv6_address() -> None:
    assert "too small for IPv6" in refusal(mtu=1279, addresses=interfaces("192.168.0.1/24", "fd00::1/64"))
    assert tunnel(mtu=1279, addresses=interfaces("192.168.0.1/24")).mtu == 1279
    assert tunnel(mtu=1280, addresses=interfaces("fd00::1/64")).mtu == 1280


@pytest.mark.parametrize(
    ("host", "route"),
    [
        ("192.0.2.1", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.1", "0.0.0.0/0"),
        ("192.0.2.1", "128.0.0.0/1"),
        ("2001:db8::1", "2001:db8::/32"),
        ("2001:db8::1", "::/0"),
        ("fe80::1%eth0", "fe80::/10"),
    ],
)
def test_a_route_that_covers_the_peer_itself_is_refused_with_an_explanation(host: str, route: str) -> None:
    message = refusal(host=host, routes=networks("10.0.0.0/8", route))
    assert route in message
    assert host in message
    assert "sent into the tunnel" in message


def test_an_address_whose_network_covers_the_peer_is_refused_too() -> None:
    assert "192.0.2.0/24" in refusal(addresses=interfaces("192.0.2.99/24"))


@pytest.mark.parametrize(("host", "route"), [("192.0.2.1", "::/0"), ("2001:db8::1", "0.0.0.0/0"), (None, "0.0.0.0/0")])
def test_a_route_of_the_other_ip_version_or_of_a_server_covers_nothing(host: str | None, route: str) -> None:
    assert tunnel(host=host, routes=networks(route)).routes == networks(route)


def test_the_addresses_of_a_name_can_be_checked_after_the_look_up() -> None:
    named = tunnel(host="remote.example.org", routes=networks("192.0.2.0/24"))
    assert named.covering(ip_interface("192.0.2.7").ip) == ip_network("192.0.2.0/24")
    assert named.covering(ip_interface("192.0.3.7").ip) is None


def test_the_repr_of_a_tunnel_holds_no_secret() -> None:
    text = repr(tunnel())
    for secret in (SECRET, OWN.private):
        assert repr(secret)[2:-1] not in text
        assert secret.hex() not in text
        assert format_key(secret) not in text


# Addresses and networks


@pytest.mark.parametrize("text", ["192.168.0.1/24", "10.0.0.1/32", "fd00::1/64", "::1/128"])
def test_an_address_with_a_prefix_length_is_accepted(text: str) -> None:
    assert str(parse_interface(text)) == text


@pytest.mark.parametrize(
    "text",
    ["192.168.0.1", "fd00::1", "192.168.0.1/33", "192.168.0/24", "fd00::1/129", "", "/24", "name/24", "1.2.3.4/-1"],
)
def test_anything_but_an_address_with_a_prefix_length_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix length"):
        parse_interface(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.168.0.0/24", "192.168.0.0/24"),
        ("192.168.0.77/24", "192.168.0.0/24"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("fd00:1::9/64", "fd00:1::/64"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
    ],
)
def test_a_network_is_accepted_and_its_host_bits_are_masked_off(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize("text", ["", "name", "10.0.0.0/33", "10.0.0/24", "fd00::/129", "10.0.0.0/x", "fd00::/64/64"])
def test_anything_but_a_network_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a network"):
        parse_network(text)


def test_two_forwards_at_one_place_are_refused() -> None:
    one, other = Forward("tcp", ("", 1), ("a", 1)), Forward("tcp", ("", 1), ("b", 1))
    with pytest.raises(ConfigurationError, match="two forwards listen on tcp :1: leave one of them out"):
        replace(tunnel(), forwards=(one, other))
    replace(tunnel(), forwards=(one, Forward("tcp", ("", 1), ("a", 1), "peer"), Forward("udp", ("", 1), ("a", 1))))
