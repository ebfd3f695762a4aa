"""Routes and rules of one tunnel: set in the kernel, adapted to this host's networks, taken back.

route_plan.py decides which ones; this file supplies what the kernel knows: free marks, existing routes, this host's
addresses. In a full tunnel the rules for this host's own networks follow its addresses as they come and go. If the
process is killed, its full tunnel stays closed: table T has lost its device, so the traffic is refused and not leaked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import count
from pathlib import Path

from vpntun.errors import ConfigurationError, DeviceError
from vpntun.firewall.arrivals import Arrivals
from vpntun.netconf.change_kinds import LooseFilter, Route, ValidMark, filter_is_strict, filter_setting
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.journal import Journal
from vpntun.netconf.localnets import addresses_only_of
from vpntun.netconf.netlink import MAIN, InterfaceAddress, Netlink
from vpntun.netconf.route_plan import (
    EVERYTHING,
    TUNNEL,
    RoutePlan,
    Table,
    automatic_routes,
    full_tunnel_rules,
    merging_rules,
    routes_by,
)
from vpntun.netconf.upkeep import Host
from vpntun.tun.ipv6 import carried_networks
from vpntun.tun.queries import mtu_of
from vpntun.types import Network

FIRST_MARK = 51820
KERNELS_TABLES = range(253, 256)
IPV6 = Path("/proc/sys/net/ipv6")


class HostRoutes:
    """The routes and rules of one tunnel. `mark`: the operator's FwMark, 0 without one.

    `ephemeral`: this process made the device, whose routes disappear with it. `tcp_port`: where peers connect by TCP,
    None if they do not.
    """

    def __init__(
        self,
        device: str,
        table: Table,
        mark: int,
        journal: Journal,
        *,
        ephemeral: bool,
        tcp_port: int | None = None,
    ) -> None:
        self._device = device
        self._table = table
        self._mark = mark
        self.changes = Changes(journal, device_is_ephemeral=ephemeral)
        self._arrivals = Arrivals(device, tcp_port)
        self._mark_is_ours = False
        self._full: tuple[int, ...] = ()
        self._settled: list[Change] = []
        self._rules: list[Change] = []
        self._filter: list[Change] = []

    def choose_mark(self, networks: Iterable[Network]) -> int:
        """Return the mark that the tunnel's sockets must carry, 0 for none; call this before making the sockets.

        Where a table is needed and there is no FwMark, choose the first number from 51820 up whose table is empty.
        Raises ConfigurationError.
        """
        plan = self._plan(networks)
        if plan.full and self._mark in KERNELS_TABLES:
            raise ConfigurationError(
                f"FwMark {self._mark} is also the number of the full tunnel's table, and that table is the kernel's: "
                "choose another FwMark, or leave it out"
            )
        if not self._mark and plan.needs_mark:
            self._mark = _free_number()
            self._mark_is_ours = True
        return self._mark

    def apply(self, networks: Iterable[Network]) -> None:
        """Route these networks, the peers' allowed IPs, into the tunnel, and take back the routes to all others.

        The device must have its addresses and be up. Raises ConfigurationError, DeviceError or PrivilegeError; then
        nothing has changed.
        """
        if self._table == "off":
            return
        plan = self._plan(networks)
        merged = plan.wide if self._mark_is_ours else ()
        if not self._mark and plan.needs_mark:
            if plan.full:
                what = f"{EVERYTHING[plan.full[0]]} makes this a full tunnel"
            else:
                what = "an allowed IP may contain a peer's endpoint"
            raise ConfigurationError(
                f"{what}, so its packets must carry a mark from the start: stop it, and start it again"
            )
        with Netlink() as netlink:
            for version in plan.full:
                self._refuse_a_second(netlink, version)
            addresses = list(netlink.addresses())
            routes = self._routes(plan, merged, addresses, netlink)
            marked = self._mark_arrivals(plan.full, merged, addresses)
            filtered = 4 in (*plan.full, *merged)
            if filtered and not self._filter:
                self._filter = _filter_that_passes(self._mark if marked else 0)
            merging = merging_rules([each.network for each in routes if each.network.version in merged], self._mark)
            settled = [*routes, *(self._filter if filtered else []), *merging]
            rules = full_tunnel_rules(self._device, plan.full, self._mark, addresses)
            self.changes.reconcile([*settled, *rules], netlink)
        self._full, self._settled, self._rules = plan.full, settled, rules

    @property
    def current(self) -> list[Change]:
        """The routes and rules that are set."""
        return [*self._settled, *self._rules]

    def follow(self, host: Host) -> list[Change]:
        """Adapt the rules to this host's own networks, and return all routes and rules."""
        if self._full:
            self._mark_arrivals(self._full, (), host.addresses)
            self._rules = full_tunnel_rules(self._device, self._full, self._mark, host.addresses)
        return self.current

    def undo(self) -> None:
        """Take everything back, the last change first."""
        self.changes.undo()
        self._arrivals.close()

    def _plan(self, networks: Iterable[Network]) -> RoutePlan:
        return RoutePlan.of(networks, self._table, ipv6=kernel_has_ipv6())

    def _routes(
        self, plan: RoutePlan, merged: Collection[int], addresses: list[InterfaceAddress], netlink: Netlink
    ) -> list[Route]:
        reachable = carried_networks(self._device, mtu_of(self._device), plan.networks)
        if isinstance(self._table, int):
            return routes_by(self._device, reachable, self._table)
        there = [each for version in (4, 6) for each in netlink.routes(version, MAIN, self._device)]
        return automatic_routes(
            self._device,
            reachable,
            full=plan.full,
            merged=merged,
            mark=self._mark,
            addresses=addresses,
            existing={each for each in there if Route(self._device, each, MAIN) not in self.changes},
        )

    def _mark_arrivals(
        self, full: Collection[int], merged: Collection[int], addresses: Iterable[InterfaceAddress]
    ) -> bool:
        """Mark what arrives if this tunnel has rules for marks, and return whether that worked."""
        if full or merged:
            return self._arrivals.mark(self._mark, addresses_only_of(self._device, addresses) if full else ())
        self._arrivals.close()
        return False

    def _refuse_a_second(self, netlink: Netlink, version: int) -> None:
        for rule in netlink.rules(version):
            if rule.priority == TUNNEL and rule.mark != self._mark:
                raise DeviceError(
                    f"another full tunnel of IPv{version} (table {rule.mark}) is up, or was killed and blocks traffic: "
                    "two would lead into each other. End it first, with 'vpntun down NAME'"
                )


def kernel_has_ipv6() -> bool:
    """Whether this kernel has IPv6 at all."""
    return IPV6.exists()


def _filter_that_passes(mark: int) -> list[Change]:
    """Return the change by which the kernel's reverse path filter passes what the peers send, with a mark or 0."""
    if mark:
        return [ValidMark(mark)]
    return [LooseFilter(filter_setting())] if filter_is_strict() else []


def _free_number() -> int:
    """Return a number that no rule uses as mark or table, and whose table holds no route."""
    with Netlink() as netlink:
        rules = [rule for version in (4, 6) for rule in netlink.rules(version)]
        taken = {number for rule in rules for number in (rule.mark, rule.table)}
        return next(
            number
            for number in count(FIRST_MARK)
            if number not in taken and not any(netlink.routes(version, number) for version in (4, 6))
        )
