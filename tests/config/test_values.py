"""Networks in text: accepted as the ipaddress module accepts them, with host bits but without a scope."""

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
