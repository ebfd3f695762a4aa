"""Routes and policy rules that follow from a tunnel's allowed IPs, computed without asking the kernel.

The key `Table` of wg-quick decides, but a full tunnel does not leak here:

    off    no routes
    N      each allowed IP becomes a route in table N
    auto   each allowed IP becomes a route in the main table, unless another route through the device covers it.
           A /0, or networks that together cover everything, make a full tunnel of that IP version. M is the mark of the
           tunnel's own packets. T, the same number unless there are several full tunnels, is a table in which the
           allowed IPs, and the networks of the device's own addresses, lead to the device. Beside them it has copies of
           the routes that lead to other tunnels:

           rule  32400   packets without the mark M:                table T, except for its default route
           rule  32401   packets to one of this host's networks:    main, if it has a route to all or part of it
           rule  32402   packets without the mark M:                table T
           rule  32403   packets without the mark M:                unreachable
           rule  32766   the rest, so packets with the mark:        main

           Without a /0, a peer's endpoint may still lie in an allowed IP, unless that is part of a private network.
           The allowed IPs of that version then go into table T as well. In main, the tunnel's own packets would
           follow them. For each of their prefix lengths L, the longest first:

           rule  from    packets without the mark M:                main, if it has a route longer than L
           rule  32420   packets without the mark M:                table T, if it has one of length L or longer

           So the longest prefix wins, as if all routes were in main. If the operator sets FwMark, they stay in main:
           routing packets with that mark is then the operator's task.

wg-quick looks up every packet in main first and follows any route there except a default route. So whoever answers
DHCP requests can divert a host's traffic by handing out routes. Here main's routes serve only three kinds of packets:
the tunnel's own, recognized by their socket's mark and not by an address; packets to the private networks in which this
host has an address (localnets.py), unless the configuration names those networks; and packets to other tunnels (the
allowed IPs of another vpntun or WireGuard, say), since nobody hands out routes through the device of a tunnel of IP
packets. These routes are copied, so that a longer one in main does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import collapse_addresses, ip_network
from typing import Literal

from vpntun.netconf.change_kinds import (
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    MERGED,
    PRIORITIES,
    OtherRoute,
    Route,
    Rule,
)
from vpntun.netconf.changes import Change
from vpntun.netconf.localnets import PRIVATE, own_networks
from vpntun.netconf.netlink import MAIN, FoundRoute, FoundRule, InterfaceAddress, Link
from vpntun.types import Network

NAMED, OWN_NETWORKS, TUNNEL, CLOSED = range(32400, 32404)
"""Priorities of a full tunnel's rules, in the order of the table above."""
EVERYTHING: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

Table = Literal["auto", "off"] | int


@dataclass(frozen=True)
class RoutePlan:
    """Allowed IPs with the consequences of `Table`.

    `full`: the IP versions that are full tunnels. `wide`: the others in which an allowed IP may contain an endpoint.
    """

    networks: Collection[Network]
    full: tuple[int, ...] = ()
    wide: tuple[int, ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network], table: Table, *, ipv6: bool) -> RoutePlan:
        """Make the plan for these allowed IPs. `ipv6`: whether the kernel has IPv6."""
        if table != "auto":
            return cls(set(networks))
        networks = collapse_to_default(networks)
        full = full_tunnel_versions(networks, ipv6=ipv6)
        wide = [each for each in versions_with_endpoints(networks) if each not in full]
        return cls(networks, tuple(full), tuple(wide))

    @property
    def needs_mark(self) -> bool:
        """Whether the tunnel's own packets need a mark, so that they do not follow the allowed IPs."""
        return bool(self.full or self.wide)


def full_tunnel_versions(networks: Iterable[Network], *, ipv6: bool) -> list[int]:
    """List the IP versions with a default route among the networks; never 6 if the kernel has no IPv6."""
    versions = {each.version for each in networks if not each.prefixlen}
    return sorted(versions if ipv6 else versions - {6})


def collapse_to_default(networks: Iterable[Network]) -> set[Network]:
    """Replace networks that together cover everything, such as two /1, by a /0; keep all other networks."""
    collapsed = set(networks)
    for version, everything in EVERYTHING.items():
        mine = {each for each in collapsed if each.version == version}
        size = sum(1 << (each.max_prefixlen - each.prefixlen) for each in mine)
        if everything in mine or size < 1 << everything.max_prefixlen:
            continue
        if list(collapse_addresses(mine)) == [everything]:  # type: ignore[type-var]
            around = set(uncovered((each.supernet() for each in mine), mine))
            collapsed -= {each for each in mine if each.supernet() in around}
            collapsed.add(everything)
    return collapsed


def versions_with_endpoints(networks: Iterable[Network]) -> list[int]:
    """List the IP versions with a network that may contain a peer's endpoint: any but a part of a private network.

    A part of a private network is taken to be the peer's own, behind the tunnel.
    """
    networks = set(networks)
    wide = {*uncovered(networks, PRIVATE), *networks.intersection(PRIVATE)}
    return sorted({each.version for each in wide})


def automatic_routes(
    device: str,
    networks: Collection[Network],
    *,
    full: Collection[int],
    merged: Collection[int],
    table: int,
    addresses: Iterable[InterfaceAddress],
    existing: Collection[Network],
) -> list[Route]:
    """Plan the routes of `Table = auto`.

    `full`: the IP versions that are full tunnels; `merged`: those whose routes go into `table` without being one.
    `addresses`: all of this host's. `existing`: the networks that others already route through the device in main.
    """
    missing = uncovered([each for each in networks if each.version not in full], existing)
    connected = connected_routes(device, addresses, full, table)
    in_table = [each for each in networks if each.version in full and each not in connected]
    in_table += [each for each in missing if each.version in merged]
    in_main = [each for each in missing if each.version not in merged]
    return [*connected.values(), *routes_by(device, in_table, table), *routes_by(device, in_main, MAIN)]


def full_tunnel_rules(
    device: str, versions: Iterable[int], table: int, mark: int, addresses: Iterable[InterfaceAddress]
) -> list[Change]:
    """Plan the rules of a full tunnel of these IP versions, for a host with these addresses.

    `table`: where its routes are. `mark`: the mark of packets that do not follow them.
    """
    own = own_networks(addresses, but_of=device)
    rules: list[Change] = []
    for version in versions:
        mine = [each for each in own if each.version == version]
        rules.append(Rule(version, NAMED, table, mark, shortest=1))
        rules += (Rule(version, OWN_NETWORKS, MAIN, to=str(each), shortest=each.prefixlen) for each in mine)
        rules.append(Rule(version, TUNNEL, table, mark))
        rules.append(Rule(version, CLOSED, 0, mark))
    return rules


def is_of_a_vpntun(rule: FoundRule) -> bool:
    """Whether a vpntun can have made the rule: it has the priority and the shape of one in the table above."""
    if rule.priority not in PRIORITIES or not rule.is_like_ours:
        return False
    looks_up = rule.action == FR_ACT_TO_TBL
    if rule.priority == OWN_NETWORKS:
        _, _, length = rule.to.partition("/")
        return looks_up and not rule.mark and rule.table == MAIN and length == str(rule.shortest)
    if not rule.mark or rule.to:
        return False
    if rule.priority == CLOSED:
        return rule.action == FR_ACT_UNREACHABLE
    if rule.priority < MERGED:
        return looks_up and (rule.priority, rule.shortest) in ((NAMED, 1), (TUNNEL, 0))
    return looks_up


def merging_rules(networks: Iterable[Network], table: int, mark: int) -> list[Change]:
    """Plan rules that make the routes to these networks, in their table, count as if they were in main.

    They do not hold for packets with the mark.
    """
    lengths = {(each.version, each.max_prefixlen, each.prefixlen) for each in networks}
    rules: list[Change] = []
    for version, longest, length in sorted(lengths, key=lambda each: (each[0], -each[2])):
        priority = MERGED + 2 * (longest - length)
        if length < longest:
            rules.append(Rule(version, priority, MAIN, mark, shortest=length + 1))
        rules.append(Rule(version, priority + 1, table, mark, shortest=length))
    return rules


def connected_routes(
    device: str, addresses: Iterable[InterfaceAddress], versions: Collection[int], table: int
) -> dict[Network, Route]:
    """Plan routes to the networks of the device's own addresses, each with its source address, as main has them."""
    routes: dict[Network, Route] = {}
    for each in addresses:
        network = each.network
        if each.device == device and each.is_somewhere_else and network.version in versions:
            source = each.address if network.version == 4 else ""  # for IPv6 the kernel picks one of the device's
            routes.setdefault(network, Route(device, network, table, source))
    return {network: route for network, route in routes.items() if not network.is_link_local}


def copied_routes(
    links: Mapping[int, Link], found: Iterable[FoundRoute], table: int, taken: Collection[Network], but_of: str
) -> list[OtherRoute]:
    """Plan copies of the routes that lead to other tunnels, for the table of a full tunnel.

    `links`: the devices by number. `taken`: networks that are routed there already. Routes that make their device a
    full tunnel as well are left out.
    """
    by_device: dict[str, dict[Network, str]] = {}
    for each in found:
        link = links.get(each.device)
        if link is not None and link.leads_to_a_tunnel and link.name != but_of and link.is_up:
            by_device.setdefault(link.name, {}).setdefault(each.network, each.source)
    copies: dict[Network, OtherRoute] = {}
    for device, networks in by_device.items():
        for network in collapse_to_default(networks):
            if network.prefixlen and network not in taken and not network.is_link_local:
                copies.setdefault(network, OtherRoute(device, network, table, networks[network]))
    return list(copies.values())


def routes_by(device: str, networks: Iterable[Network], table: int) -> list[Route]:
    """Plan a route through the device to each network, the longest prefix first."""
    ordered = sorted(networks, key=lambda network: (-network.prefixlen, network.version, network))
    return [Route(device, each, table) for each in ordered]


def uncovered(networks: Iterable[Network], others: Collection[Network]) -> list[Network]:
    """List the networks that lie in none of the others. Fast for many others, as long as their lengths are few."""
    lengths = {(each.version, each.prefixlen) for each in others}

    def is_covered(network: Network) -> bool:
        return any(
            network.supernet(new_prefix=length) in others
            for version, length in lengths
            if version == network.version and length <= network.prefixlen
        )

    return [each for each in networks if not is_covered(each)]
