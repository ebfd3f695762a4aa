"""Networks in text, as the ipaddress module accepts them, with host bits but without a scope; and hosts."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vpntun.config import values
from vpntun.config.peer import PeerSettings
from vpntun.errors import ConfigurationError

numbers = st.one_of(st.integers(0, 300).map(str), st.sampled_from(["", "00", "01", "+1", "1_0", "-1", "1e1", "\u0663"]))
addresses = st.one_of(
    st.lists(numbers, min_size=3, max_size=5).map(".".join),
    st.ip_addresses().map(str),
    st.text("0123456789abcdef:.", min_size=1, max_size=20),
)
lengths = st.one_of(st.just(""), numbers.map("/{}".format), st.sampled_from(["/255.255.0.0", "/0.0.0.255", "/8/8"]))
texts = st.one_of(st.tuples(addresses, lengths).map("".join), st.text(min_size=1, max_size=20))


@given(texts.filter(lambda text: not {*text} & {*",%"}))
@example("10.1.2.3")
@example("fd00::1/64")
@example("::ffff:10.1.2.3/128")
@example("10.0.0.0/0.0.0.255")
@example("10.0.0.0\0/8")
@example("10.0.0.0/")
@example("\udcff")
def test_a_network_is_parsed_as_by_the_ipaddress_module(text: str) -> None:
    try:
        expected = [ip_network("".join(text.split()), strict=False)]
    except ValueError:
        with pytest.raises(ConfigurationError):
            values.networks(text)
    else:
        assert values.networks(text) == expected


def test_the_networks_of_a_repeated_line_are_cached() -> None:
    for first, second in zip(
        values.networks("10.0.0.0/8, fd00::/8"), values.networks("10.0.0.0/8, fd00::/8"), strict=True
    ):
        assert first is second


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("vpn.example.org", "vpn.example.org"),
        ("vpn.example.org.", "vpn.example.org."),
        ("gate_1", "gate_1"),
        ("b\u00fccher.example", "b\u00fccher.example"),
        ("10.0.0.2", "10.0.0.2"),
        ("10.1", "10.0.0.1"),
        ("FD01::1", "fd01::1"),
        ("[fd01:0::1]", "fd01::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
    ],
)
def test_a_host_is_a_name_or_an_address_in_its_canonical_form(text: str, host: str) -> None:
    assert values.host(text) == host
    assert values.endpoint(f"{text}:51820") == (host, 51820)


NO_HOSTS = [
    *("10.0.0.2:55555", "[fd01::1]:55555", "vpn.example.org:55555", "[fd01::1", "fd01::1]", "[]", "::g"),
    *("https://vpn.example.org/", "vpn.example.org/", "alice@vpn.example.org", "a,b", "vpn?", "*", "b\udcfcro"),
    *("vpn..example.org", ".example.org", "x" * 64 + ".org", "ab." * 90 + "org", "10.0.0.256", "1.2.3.4.5", ""),
]


@pytest.mark.parametrize("text", [*NO_HOSTS, " 10.0.0.2", "10.0.0.2\n", "vpn example.org", "\t", "vpn\u00a0x"])
def test_what_no_look_up_can_find_is_refused_and_not_tried_for_ever(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a host: give a name or an address"):
        values.host(text)


@pytest.mark.parametrize("text", [each for each in NO_HOSTS if ":" not in each])
def test_the_host_of_an_endpoint_is_parsed_the_same(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not HOST:PORT"):
        values.endpoint(f"{text}:51820")


networks = st.one_of(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)).map(lambda made: IPv4Network(made, strict=False)),
    st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128)).map(lambda made: IPv6Network(made, strict=False)),
)


@given(st.lists(networks, max_size=5))
@example([ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("::ffff:0:0/96"), ip_network("::a00:0/104")])
def test_a_network_that_is_written_and_parsed_again_is_the_same(allowed: list[IPv4Network | IPv6Network]) -> None:
    written = PeerSettings(bytes(32), tuple(allowed)).allowed_as_text
    assert [ip_network(text) for text in written] == allowed
    assert values.networks(", ".join(written)) == allowed
