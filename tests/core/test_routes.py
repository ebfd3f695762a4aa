"""The route table against a list that is searched from end to end."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from vpntun.core.routes import Network, RouteTable

# Few different bits, so that prefixes meet, nest and repeat.
NUMBERS_V4 = st.lists(st.sampled_from([0, 1, 127, 128, 255]), min_size=4, max_size=4).map(bytes)
NUMBERS_V6 = st.lists(st.sampled_from([0, 1, 128, 255]), min_size=16, max_size=16).map(bytes)
ADDRESSES = NUMBERS_V4 | NUMBERS_V6 | st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    address = draw(ADDRESSES)
    length = draw(st.integers(0, 8 * len(address)) | st.sampled_from([0, 8, 8 * len(address)]))
    kind = IPv4Network if len(address) == 4 else IPv6Network
    return kind((address, length), strict=False)


def naive(routes: list[tuple[Network, str]], address: bytes) -> str | None:
    found, longest = None, -1
    for network, link in routes:
        if ip_address(address) in network and network.prefixlen >= longest:
            found, longest = link, network.prefixlen
    return found


@given(st.lists(st.tuples(networks(), st.sampled_from("abc")), max_size=30), st.lists(ADDRESSES, max_size=20))
def test_the_longest_prefix_wins_as_in_a_list_searched_from_end_to_end(
    routes: list[tuple[Network, str]], addresses: list[bytes]
) -> None:
    table: RouteTable[str] = RouteTable()
    for network, link in routes:
        table.add(network, link)
    for address in [*addresses, *(network.network_address.packed for network, _ in routes)]:
        assert table.find(address) == naive(routes, address)


def test_an_identical_prefix_moves_to_the_newer_link() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.1.0.0/16"), "old")
    table.add(ip_network("10.0.0.0/8"), "wide")
    table.add(ip_network("10.1.0.0/16"), "new")
    assert table.find(bytes([10, 1, 2, 3])) == "new"
    assert table.find(bytes([10, 2, 2, 3])) == "wide"


def test_host_bits_do_not_count() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(ip_network("10.1.2.3/8", strict=False), "a")
    assert table.find(bytes([10, 200, 0, 1])) == "a"


def test_an_empty_table_leads_nowhere_and_the_versions_do_not_mix() -> None:
    table: RouteTable[str] = RouteTable()
    assert table.find(bytes(4)) is None
    assert table.find(bytes(16)) is None
    table.add(ip_network("::/0"), "six")
    assert table.find(bytes(4)) is None
    assert table.find(bytes(16)) == "six"
