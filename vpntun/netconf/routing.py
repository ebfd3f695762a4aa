"""Routes and rules of one tunnel: set in the kernel, adapted to this host's networks, taken back.

route_plan.py decides which ones; this file supplies what the kernel knows: free marks, existing routes, this host's
addresses. In a full tunnel the rules for this host's own networks follow its addresses as they come and go. If the
process is killed, its full tunnel stays closed: table T has lost its device, so the traffic is refused and not leaked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import count
from pathlib import Path

from vpntun.errors import CannotChange, ConfigurationError, DeviceError, PrivilegeError
from vpntun.firewall.arrivals import Arrivals
from vpntun.netconf.change_kinds import (
    MERGED,
    LooseFilter,
    Route,
    ValidMark,
    filter_is_strict,
    filter_setting,
    marks_are_valid,
)
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.cleanup import changes_of, others_of, remove_leftovers, rules_of
from vpntun.netconf.journal import Journal
from vpntun.netconf.localnets import addresses_only_of
from vpntun.netconf.netlink import KERNELS_TABLES, MAIN, FoundRoute, FoundRule, InterfaceAddress, Netlink
from vpntun.netconf.route_plan import (
    EVERYTHING,
    TUNNEL,
    RoutePlan,
    Table,
    automatic_routes,
    copied_routes,
    full_tunnel_rules,
    is_of_a_vpntun,
    merging_rules,
    routes_by,
)
from vpntun.netconf.upkeep import Host
from vpntun.runtime.log import notice
from vpntun.tun.ipv6 import carried_networks
from vpntun.tun.queries import mtu_of
from vpntun.types import Network

FIRST_MARK = 51820
IPV6 = Path("/proc/sys/net/ipv6")


class HostRoutes:
    """The routes and rules of one tunnel. `mark`: the operator's FwMark, 0 without one.

    `ephemeral`: this process made the device, whose routes disappear with it. `tcp_port`: where the peers connect by
    TCP, if they do. `set_mark`: gives the tunnel's sockets another mark. Raises PrivilegeError.
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
        set_mark: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._device = device
        self._table = table
        self._fixed_mark = self._mark = self._number = mark
        self._set_mark = set_mark
        self._journal = journal
        self._refused_mark: int | None = None
        self.changes = Changes(journal, device_is_ephemeral=ephemeral)
        self._arrivals = Arrivals(device, tcp_port)
        self._full: tuple[int, ...] = ()
        self._merged: list[Network] = []
        self._settled: list[Change] = []
        self._following: list[Change] = []
        self._filter: list[Change] = []

    def choose_mark(self, networks: Iterable[Network]) -> int:
        """Return the mark that the tunnel's sockets must carry, 0 for none; call this before making the sockets.

        Where a table is needed and there is no FwMark, choose the first number from 51820 up whose table is empty.
        Raises ConfigurationError.
        """
        plan = self._plan(networks)
        if plan.full and self._fixed_mark and self._fixed_mark in KERNELS_TABLES:
            raise ConfigurationError(
                f"FwMark {self._fixed_mark} is also the number of the full tunnel's table, and that table is the "
                "kernel's: choose another FwMark, or leave it out"
            )
        if plan.needs_mark:
            remove_leftovers(self._device, self._journal.folder)
        if not self._number and plan.needs_mark:
            self._mark = self._number = _free_number()
        return self._mark

    def apply(self, networks: Iterable[Network]) -> None:
        """Route these networks, the peers' allowed IPs, into the tunnel, and take back the routes to all others.

        The device must have its addresses and be up. Raises ConfigurationError, DeviceError or PrivilegeError; then
        nothing has changed.
        """
        if self._table == "off":
            return
        plan = self._plan(networks)
        merged = plan.wide if not self._fixed_mark else ()
        if not self._number and plan.needs_mark:
            if plan.full:
                what = f"{EVERYTHING[plan.full[0]]} makes this a full tunnel"
            else:
                what = "an allowed IP may contain a peer's endpoint"
            raise ConfigurationError(
                f"{what}, so its packets must carry a mark from the start: stop it, and start it again"
            )
        with Netlink() as netlink:
            host = Host.of(netlink)
            for version in plan.full:
                self._refuse_a_second(host, version)
            routes = self._routes(plan, merged, host)
            try:
                self._set(netlink, host, plan, merged, routes)
            except BaseException:
                self._share_mark(host.rules, self._full)
                self._mark_arrivals(self._full, self._merged, host.addresses)
                raise
            finally:
                if not self._full and not self._merged:
                    self._arrivals.close()

    def change_mark(self, mark: int) -> None:
        """Give the tunnel's sockets another FwMark of the operator's, 0 for none.

        Rules of this tunnel's own keep the mark that they need: 0 then leaves it as it is. Raises CannotChange for
        another one, or PrivilegeError; then nothing has changed.
        """
        if self.needs_its_mark:
            if mark not in (0, self._mark):
                raise CannotChange(
                    f"this tunnel's own rules need the mark {self._mark}: for another one, set FwMark in the "
                    "configuration file and restart the tunnel"
                )
            return
        self._set_mark(mark)
        self._fixed_mark = self._mark = self._number = mark
        self._refused_mark = None

    def peers_connect_at(self, tcp_port: int | None) -> None:
        """Note another port where the peers connect by TCP, None if they do not."""
        self._arrivals.change_port(tcp_port)

    @property
    def needs_its_mark(self) -> bool:
        """Whether rules of this tunnel's own need the present mark, or will need it."""
        chosen_here = self._table == "auto" and bool(self._number) and not self._fixed_mark
        return bool(self._full or self._merged or chosen_here)

    @property
    def current(self) -> list[Change]:
        """The routes and rules that are set."""
        return [*self._settled, *self._following]

    def follow(self, host: Host) -> list[Change]:
        """Adapt rules and copied routes to this host's networks and other tunnels. Return all routes and rules."""
        self._share_mark(host.rules, self._full)
        if self._full or self._merged:
            self._mark_arrivals(self._full, self._merged, host.addresses)
            routes = [each for each in self._settled if isinstance(each, Route)]
            self._following = self._follow(host, self._full, self._merged, routes)
        return self.current

    def rules_changed(self) -> None:
        """Give the tunnel's packets the mark of another full tunnel at once, before a connection is dialled inside it.

        If this tunnel has rules of its own, `follow` changes them together with the mark.
        """
        if not self._full and not self._merged:
            with Netlink() as netlink:
                self._share_mark(netlink.all_rules(), ())

    def undo(self) -> None:
        """Take everything back, the last change first."""
        self.changes.undo()
        self._arrivals.close()

    def _plan(self, networks: Iterable[Network]) -> RoutePlan:
        return RoutePlan.of(networks, self._table, ipv6=kernel_has_ipv6())

    def _set(self, netlink: Netlink, host: Host, plan: RoutePlan, merged: Collection[int], routes: list[Route]) -> None:
        """Set these routes, and what follows from the plan. Raises VpntunError, and only marks have changed then."""
        self._share_mark(host.rules, plan.full)
        marked = self._mark_arrivals(plan.full, merged, host.addresses)
        filtered = 4 in (*plan.full, *merged)
        if filtered and not self._filter:
            self._filter = self._filter_that_passes(marked=marked)
        settled = [*routes, *(self._filter if filtered else [])]
        merged_networks = [each.network for each in routes if each.network.version in merged]
        following = self._follow(host, plan.full, merged_networks, routes)
        self.changes.reconcile([*settled, *following], netlink)
        self._full, self._merged, self._settled, self._following = plan.full, merged_networks, settled, following

    def _routes(self, plan: RoutePlan, merged: Collection[int], host: Host) -> list[Route]:
        reachable = carried_networks(self._device, mtu_of(self._device), plan.networks)
        if isinstance(self._table, int):
            return routes_by(self._device, reachable, self._table)
        there = [each for version in (4, 6) for each in host.netlink.routes(version, MAIN, self._device)]
        return automatic_routes(
            self._device,
            reachable,
            full=plan.full,
            merged=merged,
            table=self._number,
            addresses=host.addresses,
            existing={each for each in there if Route(self._device, each, MAIN) not in self.changes},
        )

    def _follow(
        self, host: Host, full: Collection[int], merged: Collection[Network], routes: Iterable[Route]
    ) -> list[Change]:
        """Plan what depends on more of this host than the tunnel's device."""
        taken = {each.network for each in routes if each.table == self._number}
        links = {link.number: link for link in host.links.values()}
        copies = [
            copy
            for version in full
            for copy in copied_routes(links, self._routes_of_others(host, version), self._number, taken, self._device)
        ]
        merging = merging_rules(merged, self._number, self._mark)
        rules = full_tunnel_rules(self._device, full, self._number, self._mark, host.addresses)
        return [*copies, *merging, *rules]

    def _routes_of_others(self, host: Host, version: int) -> Iterator[FoundRoute]:
        """Read the routes of main that lead to other tunnels, and those that other vpntuns have merged with main."""
        for link in host.links.values():
            if link.leads_to_a_tunnel and link.name != self._device:
                yield from host.netlink.found_routes(version, MAIN, link.number)
        merged = {rule.table for rule in host.rules if rule.priority >= MERGED and is_of_a_vpntun(rule)}
        for table in sorted(merged - {0, MAIN, self._number}):
            yield from host.netlink.found_routes(version, table)

    def _share_mark(self, rules: Iterable[FoundRule], full: Collection[int]) -> None:
        """Let the tunnel's sockets carry the mark of the first full tunnel, so that their packets go beside it."""
        if self._fixed_mark:
            return
        numbers = {rule.table for rule in rules if rule.priority == TUNNEL and is_of_a_vpntun(rule)}
        mark = min(numbers.union([self._number] if full else ()), default=self._number)
        if mark in (self._mark, self._refused_mark):
            return
        try:
            self._set_mark(mark)
        except PrivilegeError as error:
            self._refused_mark = mark
            notice("another full tunnel is up, and this tunnel's own packets go through it: %s", error)
        else:
            self._mark, self._refused_mark = mark, None

    def _mark_arrivals(
        self, full: Collection[int], merged: Collection[object], addresses: Iterable[InterfaceAddress]
    ) -> bool:
        """Mark what arrives if this tunnel has rules for marks, and return whether that worked."""
        if not full and not merged:
            return False
        return self._arrivals.mark(self._mark, addresses_only_of(self._device, addresses) if full else ())

    def _filter_that_passes(self, *, marked: bool) -> list[Change]:
        """Return the change by which the kernel's reverse path filter passes what the peers send.

        `marked`: whether arriving packets are. What another tunnel has changed is this one's change as well, so that
        the last of them to end restores it; what the operator has set so stays.
        """
        folder = self._journal.folder
        others = (change for name in others_of(self._device, folder) for change in changes_of(name, folder))
        if marked:
            is_left = marks_are_valid() and not any(isinstance(change, ValidMark) for change in others)
            return [] if is_left else [ValidMark(self._number)]
        if filter_is_strict():
            return [LooseFilter(filter_setting(), self._number)]
        made = next((change for change in others if isinstance(change, LooseFilter)), None)
        return [LooseFilter(made.former, self._number)] if made is not None else []

    def _refuse_a_second(self, host: Host, version: int) -> None:
        folder = self._journal.folder
        tunnels = [rule for rule in host.rules if rule.priority == TUNNEL and is_of_a_vpntun(rule)]
        for rule in tunnels:
            if rule.version == version and rule.table != self._number:
                owners = [name for name in others_of(self._device, folder) if rule.table in _tables_of(name, folder)]
                raise DeviceError(
                    f"another full tunnel of IPv{version} (table {rule.table}) is up, or was killed and blocks "
                    "traffic: two would lead into each other. End it first, with "
                    f"'vpntun down {owners[0] if owners else 'NAME'}'"
                )


def _tables_of(interface: str, folder: Path) -> set[int]:
    return {rule.table for rule in rules_of(interface, folder)}


def kernel_has_ipv6() -> bool:
    """Whether this kernel has IPv6 at all."""
    return IPV6.exists()


def _free_number() -> int:
    """Return a number that no rule uses as mark or table, and whose table holds no route."""
    with Netlink() as netlink:
        taken = {number for rule in netlink.all_rules() for number in (rule.mark, rule.table)}
        return next(
            number
            for number in count(FIRST_MARK)
            if number not in taken and not any(netlink.routes(version, number) for version in (4, 6))
        )
