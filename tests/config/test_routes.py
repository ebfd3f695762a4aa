"""Routes of options: networks on a TUN device, and networks with a gateway on a TAP device."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.config.keys import derived_keys
from vpntun.config.routes import complete, parse_route
from vpntun.errors import ConfigurationError
from vpntun.types import DeviceKind

KEYS = derived_keys("server", bytes(32))
FOUR, SIX = ip_network("10.2.0.0/16"), ip_network("fd02::/64")
KINDS: st.SearchStrategy[DeviceKind] = st.sampled_from(["tun", "tap"])


@pytest.mark.parametrize("text", ["10.2.0.0/16", " 10.2.3.4/16 "])
@pytest.mark.parametrize("device", ["tun", "tap"])
def test_a_network_alone_is_a_route(text: str, device: DeviceKind) -> None:
    assert parse_route(text, device) == (FOUR, None)


@pytest.mark.parametrize(
    ("text", "gateway"),
    [
        ("10.2.0.0/16 via 10.9.0.2", "10.9.0.2"),
        ("10.2.0.0/16  via\t10.9.0.2 ", "10.9.0.2"),
        ("::/0 via fe80::2", "fe80::2"),
    ],
)
def test_a_gateway_is_parsed_on_a_tap_device(text: str, gateway: str) -> None:
    assert parse_route(text, "tap")[1] == ip_address(gateway)


@pytest.mark.parametrize(
    "text",
    [
        "10.2.0.0/16 via",
        "10.2.0.0/16 via 10.9.0.256",
        "10.2.0.0/16 via fd09::2",
        "10.2.0.0/16 by 10.9.0.2",
        "10.2.0.0/16 via 10.9.0.2 dev eth0",
        "fd02::/64 via fe80::2%eth0",
    ],
)
def test_anything_but_a_gateway_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a route: give it as --route 'NETWORK via ADDRESS'"):
        parse_route(text, "tap")


def test_a_gateway_is_refused_on_a_tun_device() -> None:
    with pytest.raises(ConfigurationError, match="a route into a TUN device has no gateway: give the network alone"):
        parse_route("10.2.0.0/16 via 10.9.0.2", "tun")


@given(text=st.text(max_size=30) | st.text("0123456789./:via ", max_size=30), device=KINDS)
def test_any_text_is_parsed_or_refused(text: str, device: DeviceKind) -> None:
    try:
        network, gateway = parse_route(text, device)
    except ConfigurationError:
        return
    assert gateway is None or (device == "tap" and gateway.version == network.version)


def test_the_peer_is_the_gateway_of_routes_that_name_none_each_of_its_ip_version() -> None:
    given_gateway = ip_address("100.64.0.9")
    routes = [(FOUR, None), (SIX, None), (ip_network("10.3.0.0/16"), given_gateway)]
    assert complete(routes, KEYS.derived_addresses, KEYS.derived_peer_addresses) == {
        FOUR: KEYS.derived_peer_addresses[0],
        SIX: KEYS.derived_peer_addresses[1],
        ip_network("10.3.0.0/16"): given_gateway,
    }


def test_a_route_has_one_gateway_however_often_it_is_given() -> None:
    one, other = ip_address("10.9.0.2"), ip_address("10.9.0.3")
    assert complete([(FOUR, one), (FOUR, one)], (), ()) == {FOUR: one}
    with pytest.raises(ConfigurationError, match=r"by two gateways, 10\.9\.0\.2 and 10\.9\.0\.3: leave one out"):
        complete([(FOUR, one), (FOUR, other)], (), ())


def test_without_the_peers_address_a_route_needs_a_gateway() -> None:
    with pytest.raises(ConfigurationError, match=r"--route 10\.2\.0\.0/16: on a TAP device a route needs a gateway"):
        complete([(FOUR, None)], [ip_interface("10.9.0.1/24")], ())


def test_this_ends_own_address_is_no_gateway() -> None:
    with pytest.raises(ConfigurationError, match=r"10\.9\.0\.1 is this end's own address"):
        complete([(FOUR, ip_address("10.9.0.1"))], [ip_interface("10.9.0.1/24")], ())
