"""What is planned for a tunnel's routes; what the kernel makes of it is in tests/netns/test_routing.py."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.errors import ConfigurationError
from vpntun.netconf.change_kinds import Route, Rule
from vpntun.netconf.journal import Journal
from vpntun.netconf.netlink import InterfaceAddress
from vpntun.netconf.routing import (
    HostRoutes,
    Table,
    connected_routes,
    made_whole,
    merging_rules,
    routes_by,
    uncovered,
    versions_in_full,
    versions_with_endpoints,
)
from vpntun.types import Network


def networks(text: str) -> list[Network]:
    return [ip_network(each) for each in text.split()]


def tunnel(folder: Path, table: Table, mark: int = 0) -> HostRoutes:
    return HostRoutes("tun3", table, mark, Journal("tun3", folder), ephemeral=True)


@pytest.fixture
def of(tmp_path: Path) -> Iterator[list[HostRoutes]]:
    made: list[HostRoutes] = []
    yield made
    for each in made:
        each.undo()


@pytest.mark.parametrize(
    ("allowed", "versions"),
    [("10.0.0.0/8 fd00::/8", []), ("0.0.0.0/0", [4]), ("::/0 10.0.0.0/8", [6]), ("0.0.0.0/0 ::/0", [4, 6])],
)
def test_a_default_route_makes_a_full_tunnel_of_its_ip_version(allowed: str, versions: list[int]) -> None:
    assert versions_in_full(networks(allowed)) == versions


def test_the_longest_prefix_is_routed_first() -> None:
    routes = routes_by("tun3", networks("10.0.0.0/8 10.1.0.0/16 fd01::/64 10.1.2.3/32"), 7)
    assert routes == [Route("tun3", each, 7) for each in networks("fd01::/64 10.1.2.3/32 10.1.0.0/16 10.0.0.0/8")]


def test_what_lies_in_a_network_that_has_a_route_already_needs_none() -> None:
    allowed = networks("10.1.2.3/32 10.1.0.0/16 10.2.0.0/16 fd01::5/128 fd02::/64")
    there = networks("10.1.0.0/16 fd01::/64 0.0.0.0/32")
    assert uncovered(allowed, there) == networks("10.2.0.0/16 fd02::/64")


some_networks = st.lists(
    st.builds(
        lambda address, length: IPv4Network((address << 24, length), strict=False),
        st.integers(0, 15),
        st.integers(3, 10),
    ),
    max_size=8,
)


@given(some_networks, some_networks)
def test_what_is_covered_is_what_lies_in_one_of_them(some: list[IPv4Network], others: list[IPv4Network]) -> None:
    naive = [each for each in some if not any(each.subnet_of(other) for other in others)]
    assert uncovered(some, others) == naive


@pytest.mark.parametrize(
    ("allowed", "whole"),
    [
        ("", ""),
        ("0.0.0.0/0 10.0.0.0/8", "0.0.0.0/0 10.0.0.0/8"),
        ("0.0.0.0/1 128.0.0.0/1", "0.0.0.0/0"),
        ("0.0.0.0/1 128.0.0.0/2 192.0.0.0/2 10.0.0.0/8 ::/1", "0.0.0.0/0 10.0.0.0/8 ::/1"),
        ("::/1 8000::/1 8000::/2 10.0.0.0/8", "::/0 8000::/2 10.0.0.0/8"),
        ("0.0.0.0/1 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2", "0.0.0.0/1 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2"),
    ],
)
def test_what_is_everything_together_counts_as_a_default_route(allowed: str, whole: str) -> None:
    assert made_whole(networks(allowed)) == set(networks(whole))


@pytest.mark.parametrize(
    ("allowed", "versions"),
    [
        ("10.9.0.0/16 192.168.7.0/24 100.64.0.1/32 fd09::/64", []),
        ("10.0.0.0/8 fd09::/64", [4]),
        ("8.0.0.0/6", [4]),
        ("192.0.2.1/32 2001:db8::/64", [4, 6]),
        ("::/0 10.9.0.0/16", [6]),
    ],
)
def test_an_endpoint_may_be_anywhere_but_in_a_part_of_a_private_network(allowed: str, versions: list[int]) -> None:
    assert versions_with_endpoints(networks(allowed)) == versions


def test_rules_merge_a_table_with_main_one_length_after_the_other() -> None:
    assert merging_rules(networks("10.0.0.0/8 192.0.2.1/32 11.0.0.0/8 fd00::/8"), 7) == [
        Rule(4, 5201, 7, 7, shortest=32),
        Rule(4, 5248, 254, 7, shortest=9),
        Rule(4, 5249, 7, 7, shortest=8),
        Rule(6, 5440, 254, 7, shortest=9),
        Rule(6, 5441, 7, 7, shortest=8),
    ]


@given(some_networks, some_networks, st.integers(0, 15))
def test_of_two_merged_tables_the_longest_prefix_counts(
    mine: list[IPv4Network], mains: list[IPv4Network], octet: int
) -> None:
    to = ip_network((octet << 24, 32))
    tables = {7: mine, 254: mains}

    def longest(table: int) -> int:
        return max((each.prefixlen for each in tables[table] if to.subnet_of(each)), default=-1)  # type: ignore[arg-type]

    rules = [each for each in merging_rules(mine, 7) if isinstance(each, Rule)]
    assert rules == sorted(rules, key=lambda each: each.priority)
    chosen = next((each.table for each in rules if longest(each.table) >= each.shortest), 254)
    assert chosen == (7 if longest(7) >= longest(254) and longest(7) >= 0 else 254)


def test_the_networks_of_the_devices_addresses_are_routed_with_the_address_to_send_from() -> None:
    def reach(device: str, interface: str) -> InterfaceAddress:
        return InterfaceAddress(device, str(ip_interface(interface).ip), ip_interface(interface).network)

    addresses = [
        reach("eth0", "192.168.1.7/24"),
        reach("tun3", "10.9.0.1/24"),
        reach("tun3", "10.9.0.2/24"),
        reach("tun3", "10.8.0.1/32"),
        reach("tun3", "fd09::1/64"),
        reach("tun3", "fe80::1/64"),
    ]
    four, six = networks("10.9.0.0/24 fd09::/64")
    assert connected_routes("tun3", addresses, [4, 6], 7) == {
        four: Route("tun3", four, 7, "10.9.0.1"),
        six: Route("tun3", six, 7),
    }
    assert list(connected_routes("tun3", addresses, [6], 7)) == [six]


@pytest.mark.parametrize(
    ("table", "mark", "allowed", "chosen"),
    [
        ("off", 0, "0.0.0.0/0", 0),
        ("off", 7, "0.0.0.0/0", 7),
        (99, 0, "0.0.0.0/0", 0),
        (99, 7, "0.0.0.0/0", 7),
        ("auto", 0, "10.0.0.0/9 fd00::/8", 0),
        ("auto", 7, "10.0.0.0/8", 7),
        ("auto", 7, "0.0.0.0/0", 7),
        ("auto", 7, "8.0.0.0/6", 7),
    ],
)
def test_the_mark_is_the_one_that_was_asked_for(
    tmp_path: Path, of: list[HostRoutes], table: Table, mark: int, allowed: str, chosen: int
) -> None:
    of.append(tunnel(tmp_path, table, mark))
    assert of[0].choose_mark(networks(allowed)) == chosen


@pytest.mark.parametrize("allowed", ["::/0", "0.0.0.0/1 128.0.0.0/1", "8.0.0.0/6"])
def test_what_may_lead_to_an_endpoint_has_a_mark_chosen_once(
    tmp_path: Path, of: list[HostRoutes], allowed: str
) -> None:
    of.append(tunnel(tmp_path, "auto"))
    chosen = of[0].choose_mark(networks(allowed))
    assert chosen >= 51820
    assert of[0].choose_mark(networks(allowed)) == chosen


@pytest.mark.parametrize("mark", [253, 254, 255])
def test_no_full_tunnel_takes_a_table_of_the_kernels(tmp_path: Path, of: list[HostRoutes], mark: int) -> None:
    of.append(tunnel(tmp_path, "auto", mark))
    with pytest.raises(ConfigurationError, match=f"FwMark {mark}"):
        of[0].choose_mark(networks("0.0.0.0/0"))


def test_what_was_no_full_tunnel_at_the_start_cannot_become_one(tmp_path: Path, of: list[HostRoutes]) -> None:
    of.append(tunnel(tmp_path, "auto"))
    assert of[0].choose_mark(networks("10.0.0.0/9")) == 0
    with pytest.raises(ConfigurationError, match="start it again"):
        of[0].apply(networks("10.0.0.0/9 ::/0"))
