"""Routes and rules planned from allowed IPs; tests/netns/test_routing.py checks what the kernel does with them."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpntun.netconf.change_kinds import PRIORITIES, OtherRoute, Route, Rule
from vpntun.netconf.netlink import IFF_NOARP, IFF_UP, FoundRoute, FoundRule, InterfaceAddress, Link
from vpntun.netconf.route_plan import (
    RoutePlan,
    Table,
    automatic_routes,
    collapse_to_default,
    connected_routes,
    copied_routes,
    full_tunnel_rules,
    full_tunnel_versions,
    is_of_a_vpntun,
    merging_rules,
    routes_by,
    uncovered,
    versions_with_endpoints,
)
from vpntun.types import Network


def networks(text: str) -> list[Network]:
    return [ip_network(each) for each in text.split()]


def address_on(device: str, interface: str) -> InterfaceAddress:
    return InterfaceAddress(device, str(ip_interface(interface).ip), ip_interface(interface).network)


@pytest.mark.parametrize(
    ("table", "full", "wide", "needs_mark"),
    [("auto", (4,), (6,), True), ("off", (), (), False), (99, (), (), False)],
)
def test_only_table_auto_makes_full_tunnels(
    table: Table, full: tuple[int, ...], wide: tuple[int, ...], needs_mark: bool
) -> None:
    plan = RoutePlan.of(networks("0.0.0.0/0 2001:db8::/64"), table, ipv6=True)
    assert plan == RoutePlan(set(networks("0.0.0.0/0 2001:db8::/64")), full, wide)
    assert plan.needs_mark == needs_mark


@pytest.mark.parametrize(
    ("allowed", "versions"),
    [("10.0.0.0/8 fd00::/8", []), ("0.0.0.0/0", [4]), ("::/0 10.0.0.0/8", [6]), ("0.0.0.0/0 ::/0", [4, 6])],
)
def test_a_default_route_makes_a_full_tunnel_of_its_ip_version(allowed: str, versions: list[int]) -> None:
    assert full_tunnel_versions(networks(allowed), ipv6=True) == versions


def test_a_kernel_without_ipv6_has_no_full_tunnel_of_it() -> None:
    assert full_tunnel_versions(networks("0.0.0.0/0 ::/0"), ipv6=False) == [4]


def test_the_longest_prefix_is_routed_first() -> None:
    routes = routes_by("tun3", networks("10.0.0.0/8 10.1.0.0/16 fd01::/64 10.1.2.3/32"), 7)
    assert routes == [Route("tun3", each, 7) for each in networks("fd01::/64 10.1.2.3/32 10.1.0.0/16 10.0.0.0/8")]


def test_a_network_inside_a_routed_one_needs_no_route() -> None:
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
def test_a_network_is_covered_if_it_lies_in_one_of_the_others(
    some: list[IPv4Network], others: list[IPv4Network]
) -> None:
    naive = [each for each in some if not any(each.subnet_of(other) for other in others)]
    assert uncovered(some, others) == naive


@pytest.mark.parametrize(
    ("allowed", "collapsed"),
    [
        ("", ""),
        ("0.0.0.0/0 10.0.0.0/8", "0.0.0.0/0 10.0.0.0/8"),
        ("0.0.0.0/1 128.0.0.0/1", "0.0.0.0/0"),
        ("0.0.0.0/1 128.0.0.0/2 192.0.0.0/2 10.0.0.0/8 ::/1", "0.0.0.0/0 10.0.0.0/8 ::/1"),
        ("::/1 8000::/1 8000::/2 10.0.0.0/8", "::/0 8000::/2 10.0.0.0/8"),
        ("0.0.0.0/1 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2", "0.0.0.0/1 0.0.0.0/2 64.0.0.0/2 128.0.0.0/2"),
    ],
)
def test_networks_that_together_are_everything_count_as_a_default_route(allowed: str, collapsed: str) -> None:
    assert collapse_to_default(networks(allowed)) == set(networks(collapsed))


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
def test_an_endpoint_may_be_anywhere_except_in_a_part_of_a_private_network(allowed: str, versions: list[int]) -> None:
    assert versions_with_endpoints(networks(allowed)) == versions


def test_rules_merge_a_table_with_main_one_prefix_length_at_a_time() -> None:
    assert merging_rules(networks("10.0.0.0/8 192.0.2.1/32 11.0.0.0/8 fd00::/8"), 7, 7) == [
        Rule(4, 32421, 7, 7, shortest=32),
        Rule(4, 32468, 254, 7, shortest=9),
        Rule(4, 32469, 7, 7, shortest=8),
        Rule(6, 32660, 254, 7, shortest=9),
        Rule(6, 32661, 7, 7, shortest=8),
    ]


@given(some_networks, some_networks, st.integers(0, 15))
def test_the_longest_prefix_of_two_merged_tables_wins(
    mine: list[IPv4Network], mains: list[IPv4Network], octet: int
) -> None:
    to = ip_network((octet << 24, 32))
    tables = {7: mine, 254: mains}

    def longest(table: int) -> int:
        return max((each.prefixlen for each in tables[table] if to.subnet_of(each)), default=-1)  # type: ignore[arg-type]

    rules = [each for each in merging_rules(mine, 7, 7) if isinstance(each, Rule)]
    assert rules == sorted(rules, key=lambda each: each.priority)
    assert all(each.priority in PRIORITIES for each in rules)
    chosen = next((each.table for each in rules if longest(each.table) >= each.shortest), 254)
    assert chosen == (7 if longest(7) >= longest(254) and longest(7) >= 0 else 254)


def test_the_networks_of_the_devices_addresses_are_routed_with_their_source_address() -> None:
    addresses = [
        address_on("eth0", "192.168.1.7/24"),
        address_on("tun3", "10.9.0.1/24"),
        address_on("tun3", "10.9.0.2/24"),
        address_on("tun3", "10.8.0.1/32"),
        address_on("tun3", "fd09::1/64"),
        address_on("tun3", "fe80::1/64"),
    ]
    four, six = networks("10.9.0.0/24 fd09::/64")
    assert connected_routes("tun3", addresses, [4, 6], 7) == {
        four: Route("tun3", four, 7, "10.9.0.1"),
        six: Route("tun3", six, 7),
    }
    assert list(connected_routes("tun3", addresses, [6], 7)) == [six]


def test_allowed_ips_of_a_full_tunnel_go_into_its_table_and_the_others_into_main() -> None:
    addresses = [address_on("tun3", "10.9.0.1/24"), address_on("tun3", "fd09::1/64")]
    whole, connected, wide, there = networks("0.0.0.0/0 10.9.0.0/24 2001:db8::/64 fd07::/64")
    routes = automatic_routes(
        "tun3",
        [whole, connected, wide, there],
        full=[4],
        merged=[],
        table=7,
        addresses=addresses,
        existing={there},
    )
    assert routes == [Route("tun3", connected, 7, "10.9.0.1"), Route("tun3", whole, 7), Route("tun3", wide, 254)]


def test_allowed_ips_of_a_merged_version_go_into_the_table_of_the_mark() -> None:
    wide, private = networks("8.0.0.0/6 fd07::/64")
    routes = automatic_routes("tun3", [wide, private], full=[], merged=[4], table=7, addresses=[], existing=())
    assert routes == [Route("tun3", wide, 7), Route("tun3", private, 254)]


def test_a_full_tunnel_leaves_this_hosts_private_networks_to_main() -> None:
    addresses = [
        address_on("eth0", "192.168.1.7/24"),
        address_on("eth0", "203.0.113.9/24"),
        address_on("eth0", "fd00::7/64"),
        address_on("tun3", "10.9.0.1/24"),
    ]
    assert full_tunnel_rules("tun3", [4], 7, 8, addresses) == [
        Rule(4, 32400, 7, 8, shortest=1),
        Rule(4, 32401, 254, to="192.168.1.0/24", shortest=24),
        Rule(4, 32402, 7, 8),
        Rule(4, 32403, 0, 8),
    ]
    assert full_tunnel_rules("tun3", [], 7, 8, addresses) == []


def link(number: int, name: str, kind: str, flags: int = IFF_UP | IFF_NOARP) -> Link:
    return Link(number, name, flags, 1420, kind)


def test_a_full_tunnel_copies_the_routes_that_lead_to_other_tunnels_and_none_that_dhcp_can_hand_out() -> None:
    links = {
        each.number: each
        for each in (
            link(2, "eth0", "", IFF_UP),
            link(3, "veth0", "veth", IFF_UP),
            link(4, "tap0", "tun", IFF_UP),
            link(5, "tun3", "tun"),
            link(6, "office", "tun"),
            link(7, "wg0", "wireguard"),
            link(8, "down0", "wireguard", IFF_NOARP),
            link(9, "vpn0", "tun"),
        )
    }
    office, inner, shared, own = networks("10.20.0.0/16 10.20.1.0/24 10.30.0.0/16 10.40.0.0/16")
    halves = networks("0.0.0.0/1 128.0.0.0/1")
    found = [
        *(FoundRoute(inner, 254, number, "") for number in (2, 3, 4, 5, 8)),
        FoundRoute(office, 254, 6, "10.8.0.2"),
        FoundRoute(shared, 254, 6, ""),
        FoundRoute(shared, 254, 7, ""),
        FoundRoute(own, 254, 7, ""),
        FoundRoute(ip_network("0.0.0.0/0"), 254, 7, ""),
        FoundRoute(ip_network("fe80::/64"), 254, 7, ""),
        *(FoundRoute(half, 254, 9, "") for half in halves),
    ]
    assert copied_routes(links, found, 7, {own}, "tun3") == [
        OtherRoute("office", office, 7, "10.8.0.2"),
        OtherRoute("office", shared, 7),
    ]


@pytest.mark.parametrize(
    "rule",
    [
        FoundRule(4, 32402, 1, 7, 7, "", 0, False),
        FoundRule(4, 32402, 1, 7, 0, "", 0, True),
        FoundRule(4, 32402, 1, 77, 0, "10.1.1.1/32", 0, True),
        FoundRule(4, 32403, 1, 7, 7, "", 0, True),
        FoundRule(4, 32401, 1, 254, 0, "10.0.0.0/8", 0, True),
        FoundRule(4, 32401, 1, 77, 0, "10.0.0.0/8", 8, True),
        FoundRule(4, 32401, 1, 254, 0, "", 0, True),
        FoundRule(4, 32410, 1, 7, 7, "", 0, True),
        FoundRule(4, 32501, 1, 100, 0, "", 0, True),
        FoundRule(4, 32600, 1, 254, 0, "10.0.0.0/8", 0, True),
        FoundRule(4, 5270, 1, 52, 7, "", 0, True),
    ],
)
def test_rules_that_no_vpntun_makes_are_others(rule: FoundRule) -> None:
    assert not is_of_a_vpntun(rule)
