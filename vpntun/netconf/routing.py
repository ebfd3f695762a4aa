"""Which of this host's traffic goes into the tunnel: wg-quick's `Table`, but that a full tunnel does not leak.

    off    no route
    N      each allowed IP is a route in table N
    auto   each allowed IP is a route in the main table, but for one that a route by the device covers already.
           With a /0, or with networks that are as much together, it is a full tunnel of that IP version. T is the
           tunnel's mark, and the number of a table in which the allowed IPs and the networks of the device's own
           addresses lead to the device:

           rule   5180   without the mark T:                  table T, but for its default route
           rule   5181   to one of this host's own networks:  main, if it has a route to that or to a part of it
           rule   5182   without the mark T:                  table T
           rule   5183   without the mark T:                  unreachable
           rule  32766   the rest, so what has the mark:      main

           Without a /0, but with a network in which a peer's endpoint may be (any but a part of a private one), the
           allowed IPs of that version lie in table T too, and not in main, where the tunnel's own packets would
           follow them. For each of their prefix lengths L, the longest first:

           rule  from    without the mark T:                  main, if it has a route longer than L
           rule  5200    without the mark T:                  table T, if it has one of L or longer

           So the longest prefix counts, as if all were in main. With a FwMark of the operator's, whose way is the
           operator's to lay, they stay in main.

wg-quick looks every packet up in main first, and goes by whatever is there but a default route. So whoever answers
DHCP can have a host's traffic, by handing out routes. Here main's routes serve two kinds of packets alone: the tunnel's
own, known by their socket's mark and by no address; and those to the private networks in which this host has an address
(localnets.py), as far as the configuration does not name them. These are followed as addresses come and go. What a
killed process leaves behind is closed: table T without a device.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import collapse_addresses, ip_network
from itertools import count
from pathlib import Path
from typing import Literal

from vpntun.errors import ConfigurationError, DeviceError, VpntunError
from vpntun.netconf.change_kinds import LooseFilter, Route, Rule, filter_is_strict, filter_setting
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.journal import Journal
from vpntun.netconf.localnets import PRIVATE, AddressWatch, own_networks
from vpntun.netconf.netlink import MAIN, InterfaceAddress, Netlink
from vpntun.runtime.log import NOTICE, Limited, notice
from vpntun.tun.device import ipv6_is_on
from vpntun.types import Network

FIRST_MARK = 51820
KERNELS_TABLES = range(253, 256)
NAMED, OWN_NETWORKS, TUNNEL, CLOSED = range(5180, 5184)
MERGED = 5200
IPV6 = Path("/proc/sys/net/ipv6")
EVERYTHING: dict[int, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

Table = Literal["auto", "off"] | int


class HostRoutes:
    """The routes and rules of one tunnel. `mark`: what FwMark says, 0 for nothing.

    `goes`: the device was made here, and takes its routes along when it goes.
    """

    def __init__(self, device: str, table: Table, mark: int, journal: Journal, *, ephemeral: bool) -> None:
        self._device = device
        self._table = table
        self._mark = mark
        self._changes = Changes(journal, device_is_ephemeral=ephemeral)
        self._watch = AddressWatch()
        self._mark_is_ours = False
        self._full: list[int] = []
        self._settled: list[Change] = []
        self._rules: list[Change] = []
        self._filter: list[Change] = []
        self._cannot_follow = Limited(NOTICE, "this host's own networks cannot be followed: %s")

    def choose_mark(self, networks: Iterable[Network]) -> int:
        """The mark that the tunnel's sockets are to carry, to be asked for before they are made; 0 for none.

        Where a table is needed and there is no FwMark: the first number from 51820 up that names an empty one. Raises
        ConfigurationError.
        """
        _, full, wide = self._planned(networks)
        if full and self._mark in KERNELS_TABLES:
            raise ConfigurationError(
                f"FwMark {self._mark} is the number of the full tunnel's table too, and that one is the kernel's "
                "own: choose another, or leave it out"
            )
        if not self._mark and (full or wide):
            self._mark = _free_number()
            self._mark_is_ours = True
        return self._mark

    def apply(self, networks: Iterable[Network]) -> None:
        """Lead these networks, the peers' allowed IPs, into the tunnel, and no others any longer.

        The device has its addresses, and is up. Raises ConfigurationError, DeviceError or PrivilegeError; then nothing
        has changed.
        """
        if self._table == "off":
            return
        networks, full, wide = self._planned(networks)
        merged = wide if self._mark_is_ours else []
        if not self._mark and (full or wide):
            what = f"{EVERYTHING[full[0]]} makes this a full tunnel" if full else "a peer may be reached in allowed IPs"
            raise ConfigurationError(
                f"{what}, so its packets must carry a mark from the start: stop it, and start it again"
            )
        with Netlink() as netlink:
            for version in full:
                self._refuse_a_second(netlink, version)
            addresses = list(netlink.addresses())
            routes = self._routes_to(networks, full, merged, addresses, netlink)
            loosens = 4 in (*full, *merged)
            if loosens and not self._filter and filter_is_strict():
                self._filter = [LooseFilter(filter_setting())]
            merging = merging_rules([each.network for each in routes if each.network.version in merged], self._mark)
            settled = [*routes, *(self._filter if loosens else []), *merging]
            rules = self._rules_of(full, addresses)
            self._changes.reconcile([*settled, *rules], netlink)
        self._full, self._settled, self._rules = full, settled, rules

    def fileno(self) -> int:
        """A descriptor that is readable when there is something to `follow`."""
        return self._watch.fileno()

    def follow(self) -> None:
        """Addresses of this host have come or gone: go by its own networks as they are now."""
        self._watch.drain()
        if not self._full:
            return
        try:
            with Netlink() as netlink:
                rules = self._rules_of(self._full, netlink.addresses())
                if rules != self._rules:
                    self._changes.reconcile([*self._settled, *rules], netlink)
        except VpntunError as error:
            self._cannot_follow(error)
        else:
            self._rules = rules

    def undo(self) -> None:
        """Take everything away, the last first."""
        self._watch.close()
        self._changes.undo()

    def _planned(self, networks: Iterable[Network]) -> tuple[set[Network], list[int], list[int]]:
        """What is to be led into the tunnel; the versions that are full tunnels; those that may hold an endpoint."""
        if self._table != "auto":
            return set(networks), [], []
        networks = made_whole(networks)
        full = versions_in_full(networks)
        return networks, full, [each for each in versions_with_endpoints(networks) if each not in full]

    def _routes_to(
        self,
        networks: Collection[Network],
        full: list[int],
        merged: list[int],
        addresses: list[InterfaceAddress],
        netlink: Netlink,
    ) -> list[Route]:
        ipv6 = ipv6_is_on(self._device)
        reachable = [each for each in networks if each.version == 4 or ipv6]
        if len(reachable) < len(networks):
            notice("IPv6 is switched off on %s, or its MTU is below 1280: nothing of IPv6 goes through", self._device)
        if isinstance(self._table, int):
            return routes_by(self._device, reachable, self._table)
        there = [each for version in (4, 6) for each in netlink.routes(version, MAIN, self._device)]
        others = {each for each in there if Route(self._device, each, MAIN) not in self._changes}
        missing = uncovered([each for each in reachable if each.version not in full], others)
        connected = connected_routes(self._device, addresses, full, self._mark)
        in_table = [each for each in reachable if each.version in full and each not in connected]
        in_table += [each for each in missing if each.version in merged]
        in_main = [each for each in missing if each.version not in merged]
        by_table = ((in_table, self._mark), (in_main, MAIN))
        return [
            *connected.values(),
            *(each for some, table in by_table for each in routes_by(self._device, some, table)),
        ]

    def _rules_of(self, full: list[int], addresses: Iterable[InterfaceAddress]) -> list[Change]:
        own = own_networks(addresses, but_of=self._device) if full else []
        rules: list[Change] = []
        for version in full:
            mine = [each for each in own if each.version == version]
            rules.append(Rule(version, NAMED, self._mark, self._mark, shortest=1))
            rules += (Rule(version, OWN_NETWORKS, MAIN, to=str(each), shortest=each.prefixlen) for each in mine)
            rules.append(Rule(version, TUNNEL, self._mark, self._mark))
            rules.append(Rule(version, CLOSED, 0, self._mark))
        return rules

    def _refuse_a_second(self, netlink: Netlink, version: int) -> None:
        for rule in netlink.rules(version):
            mark = rule.get_attr("FRA_FWMARK")
            if rule.get_attr("FRA_PRIORITY") == TUNNEL and mark != self._mark:
                raise DeviceError(
                    f"another full tunnel of IPv{version} (table {mark}) is up, or was killed and keeps it closed: two "
                    "would lead into each other. End it first, with 'vpntun down NAME'"
                )


def versions_in_full(networks: Iterable[Network]) -> list[int]:
    """The IP versions that have a default route among the networks, as far as this kernel has them."""
    versions = {each.version for each in networks if not each.prefixlen}
    return sorted(versions if IPV6.exists() else versions - {6})


def made_whole(networks: Iterable[Network]) -> set[Network]:
    """The same, with a /0 in place of those that are everything together: two halves, or more parts."""
    whole = set(networks)
    for version, everything in EVERYTHING.items():
        mine = {each for each in whole if each.version == version}
        size = sum(1 << (each.max_prefixlen - each.prefixlen) for each in mine)
        if everything in mine or size < 1 << everything.max_prefixlen:
            continue
        if list(collapse_addresses(mine)) == [everything]:  # type: ignore[type-var]
            around = set(uncovered((each.supernet() for each in mine), mine))
            whole -= {each for each in mine if each.supernet() in around}
            whole.add(everything)
    return whole


def versions_with_endpoints(networks: Iterable[Network]) -> list[int]:
    """The IP versions that have a network among these which is not just a part of a private one.

    Such a part is taken for the peer's own, and not for where its endpoint is.
    """
    networks = set(networks)
    wide = {*uncovered(networks, PRIVATE), *networks.intersection(PRIVATE)}
    return sorted({each.version for each in wide})


def merging_rules(networks: Iterable[Network], mark: int) -> list[Change]:
    """Rules by which routes to these networks, in the table of the mark's number, count as if they were in main."""
    lengths = {(each.version, each.max_prefixlen, each.prefixlen) for each in networks}
    rules: list[Change] = []
    for version, longest, length in sorted(lengths, key=lambda each: (each[0], -each[2])):
        priority = MERGED + 2 * (longest - length)
        if length < longest:
            rules.append(Rule(version, priority, MAIN, mark, shortest=length + 1))
        rules.append(Rule(version, priority + 1, mark, mark, shortest=length))
    return rules


def connected_routes(
    device: str, addresses: Iterable[InterfaceAddress], versions: list[int], table: int
) -> dict[Network, Route]:
    """The routes to the networks of a device's own addresses, from which what goes there is sent, as main has them."""
    routes: dict[Network, Route] = {}
    for each in addresses:
        network = each.network
        if each.device == device and each.is_somewhere_else and network.version in versions:
            source = each.address if network.version == 4 else ""  # IPv6 chooses by the device's addresses anyway
            routes.setdefault(network, Route(device, network, table, source))
    return {network: route for network, route in routes.items() if not network.is_link_local}


def routes_by(device: str, networks: Iterable[Network], table: int) -> list[Route]:
    """The routes to these networks by a device, the longest prefix first."""
    ordered = sorted(networks, key=lambda network: (-network.prefixlen, network.version, network))
    return [Route(device, each, table) for each in ordered]


def uncovered(networks: Iterable[Network], others: Collection[Network]) -> list[Network]:
    """Those of the networks that lie in none of the others, which may be many; of the others, few have many lengths."""
    lengths = {(each.version, each.prefixlen) for each in others}

    def is_covered(network: Network) -> bool:
        return any(
            network.supernet(new_prefix=length) in others
            for version, length in lengths
            if version == network.version and length <= network.prefixlen
        )

    return [each for each in networks if not is_covered(each)]


def _free_number() -> int:
    """A number that is no mark in any rule, and no table's with a route or a rule."""
    with Netlink() as netlink:
        rules = [rule for version in (4, 6) for rule in netlink.rules(version)]
        taken = {rule.get_attr(name) for rule in rules for name in ("FRA_FWMARK", "FRA_TABLE")}
        return next(
            number
            for number in count(FIRST_MARK)
            if number not in taken and not any(any(netlink.routes(version, number)) for version in (4, 6))
        )
