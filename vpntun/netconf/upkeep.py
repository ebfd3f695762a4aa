"""Upkeep of a tunnel's settings: they follow this host's network, and what others have removed is put back.

    1. The network has changed (following/watch.py): read the lists of devices, addresses and rules.
    2. Ask each part of the settings what it wants on such a host.
    3. Make what is new, and put back what has gone: 'ip link set DEVICE down' takes the IPv6 addresses and the routes
       of a device with it, and other programs delete rules.
    4. Take back what is no longer wanted.

A look takes about 2 ms of a turn, and the next begins half a second after the last, so traffic does not wait for a host
whose network changes all the time. Lists of routes take longer: each is read in one turn, because a list that changes
while it is read has to be read again, and a routing daemon may change its routes all the time.

Nothing that fails here ends the tunnel: a notice says what is missing, and a later look tries again. A device that the
operator has taken down stays down, and gets its settings once it is up again. What another program keeps removing is
put back once a minute after the fifth time; a rule once a second, because without it packets leave beside the tunnel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from vpntun.errors import VpntunError
from vpntun.netconf.change_kinds import Address, Route, Rule
from vpntun.netconf.changes import Change, Changes
from vpntun.netconf.down import DownNotices
from vpntun.netconf.ethernet_kinds import BridgePort
from vpntun.netconf.netlink import MOST_TRIES, FoundRule, InterfaceAddress, Link, Netlink, netlink_error, whole
from vpntun.netconf.rtnetlink import Interrupted
from vpntun.runtime.log import NOTICE, Limited
from vpntun.runtime.loop import Loop
from vpntun.types import NEVER

SLICE = 0.002
PAUSE = 0.01
SECONDS_BETWEEN = 0.5
SECONDS_AFTER_FAILURE = 10.0
MOST_IN_A_MINUTE = 5
MOST_NAMED = 4
FIGHT = (
    "another program keeps removing %s: from now on it is put back once a %s. Find the program by 'ip monitor', and "
    "end it"
)

Found = TypeVar("Found")


@dataclass
class Host:
    """What the kernel has: the devices by name, all addresses, and the rules of both IP versions."""

    netlink: Netlink
    links: dict[str, Link] = field(default_factory=dict)
    addresses: list[InterfaceAddress] = field(default_factory=list)
    rules: list[FoundRule] = field(default_factory=list)

    @classmethod
    def of(cls, netlink: Netlink) -> Host:
        """Ask the kernel for everything at once. A list that keeps changing is used as it was read last."""
        links = whole(netlink.links)
        names = {link.number: link.name for link in links}
        addresses = whole(lambda: netlink.found_addresses(names))
        return cls(netlink, {link.name: link for link in links}, addresses, netlink.all_rules())


class Part(Protocol):
    """Some settings of a tunnel: those that were wanted last, and the changes that were made for them."""

    @property
    def changes(self) -> Changes:
        """The changes that this part has made."""

    @property
    def current(self) -> Iterable[Change]:
        """What was wanted last."""

    def follow(self, host: Host) -> Iterable[Change]:
        """Return what is wanted on this host, in the order in which to make it. Raises VpntunError or OSError."""


class Upkeep:
    """The upkeep of one device's settings. Its netlink sockets stay open, so it needs no descriptors later."""

    def __init__(self, device: str, loop: Loop, parts: Iterable[Part]) -> None:
        self._loop = loop
        self._parts = list(parts)
        wanted = [change for part in self._parts for change in part.current]
        bridges = (change.bridge for change in wanted if isinstance(change, BridgePort))
        self._down = DownNotices(device, next(bridges, None))
        self._netlink = Netlink()
        if wanted:
            self._netlink.open_for_changes()
        self._steps: Iterator[None] | None = None
        self._is_due = self._is_closed = False
        self._begun_at = -SECONDS_BETWEEN
        self._again_in = NEVER
        self._put_back: list[Change] = []
        self._unset: set[Change] = set()
        self._times: dict[Change, list[float]] = {}
        self._failed = Limited(NOTICE, "%s: %s", loop.time)
        self._fights = Limited(NOTICE, FIGHT, loop.time, most=3)
        self._said = Limited(NOTICE, "put back what had been removed: %s%s", loop.time, most=3)

    def look(self) -> None:
        """Begin a look soon, or another one after that which is under way."""
        if not self._is_due:
            self._is_due = True
            if self._steps is None:
                self._loop.call_later(max(0.0, self._begun_at + SECONDS_BETWEEN - self._loop.time()), self._begin)

    def look_again(self) -> None:
        """Give up the look that is under way, since what is wanted has changed, and begin another."""
        self._steps = None
        self._is_due = False
        self._unset.clear()
        self.look()

    def close(self) -> None:
        """End the upkeep, before the settings are taken back."""
        self._is_closed = True
        self._steps = None
        self._netlink.close()

    def _begin(self) -> None:
        if self._is_due and self._steps is None and not self._is_closed:
            self._is_due = False
            self._begun_at = self._loop.time()
            self._steps = self._look()
            self._continue(self._steps)

    def _continue(self, steps: Iterator[None]) -> None:
        """Work for a while, and go on later."""
        if steps is not self._steps:
            return
        has_ended = True
        try:
            has_ended = self._work(steps)
        except Interrupted:
            self._look_again_in(SECONDS_BETWEEN)
        except (VpntunError, OSError, netlink_error()) as error:
            self._cannot("changes of this host's network cannot be followed", error)
        finally:
            if has_ended:
                self._end_look()
        if not has_ended:
            self._loop.call_later(PAUSE, lambda: self._continue(steps))

    def _end_look(self) -> None:
        """Note that a look is over, also one that a bug has ended, and begin the next if the network has changed."""
        self._steps = None
        self._say_what_was_put_back()
        if self._again_in < NEVER:
            self._loop.call_later(self._again_in, self.look)
            self._again_in = NEVER
        if self._is_due:
            self._is_due = False
            self.look()

    def _work(self, steps: Iterator[None]) -> bool:
        """Take steps for a while. Returns whether the last one is done."""
        until = self._loop.time() + SLICE
        return all(self._loop.time() < until for _ in steps)

    def _look(self) -> Iterator[None]:
        host = Host(self._netlink)
        yield from self._read(host)
        self._down.look(host.links)
        for part in self._parts:
            known = set(part.current)
            wanted = dict.fromkeys(part.follow(host))
            self._unset |= wanted.keys() - known
            yield
            present = Present(host)
            for change in part.changes.other_than(wanted):
                if isinstance(change, Route):  # first, for another device may lead to the same network now
                    part.changes.drop(change, self._netlink)
                    yield
            for change in wanted:
                if change not in known or present.lacks(change):
                    self._make(part.changes, change)
                    yield
            for change in part.changes.other_than(wanted):
                part.changes.drop(change, self._netlink)
                yield

    def _read(self, host: Host) -> Iterator[None]:
        links: list[Link] = []
        yield from _gather(self._netlink.links, links)
        host.links = {link.name: link for link in links}
        names = {link.number: link.name for link in links}
        yield from _gather(lambda: self._netlink.found_addresses(names), host.addresses)
        for version in (4, 6):
            rules: list[FoundRule] = []
            yield from _gather(lambda version=version: self._netlink.found_rules(version), rules)  # type: ignore[misc]
            host.rules += rules

    def _make(self, changes: Changes, change: Change) -> None:
        is_new = change in self._unset
        if not is_new and not self._may_put_back(change):
            return
        try:
            if changes.make(change, self._netlink) and not is_new:
                self._put_back.append(change)
        except (VpntunError, OSError, netlink_error()) as error:
            self._cannot(f"{named(change)} cannot be {'set' if is_new else 'put back'}", error)
        else:
            self._unset.discard(change)

    def _may_put_back(self, change: Change) -> bool:
        now = self._loop.time()
        times = [each for each in self._times.get(change, ()) if now - each < 60.0]
        pause = 1.0 if isinstance(change, Rule) else 60.0
        if len(times) >= MOST_IN_A_MINUTE and now - times[-1] < pause:
            self._look_again_in(pause)
            return False
        self._times[change] = [*times, now][-MOST_IN_A_MINUTE:]
        if len(times) == MOST_IN_A_MINUTE - 1:
            often = "second" if pause == 1.0 else "minute"
            self._fights(named(change), often)
        return True

    def _cannot(self, what: str, error: BaseException) -> None:
        self._failed(what, error)
        self._look_again_in(SECONDS_AFTER_FAILURE)

    def _look_again_in(self, seconds: float) -> None:
        """Have another look so long after this one, or earlier; one timer a look does for all that is missing."""
        self._again_in = min(self._again_in, seconds)

    def _say_what_was_put_back(self) -> None:
        texts = [named(change) for change in self._put_back]
        if texts:
            more = f" and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else ""
            beside = any(isinstance(change, Rule) for change in self._put_back)
            self._said(
                f"{', '.join(texts[:MOST_NAMED])}{more}",
                "; meanwhile packets may have left beside the tunnel" if beside else "",
            )
            self._put_back.clear()


class Present:
    """Tells which settings a host has."""

    def __init__(self, host: Host) -> None:
        self._netlink = host.netlink
        self._links = host.links
        self._addresses = {(each.device, each.address, each.network) for each in host.addresses}
        self._rules = {
            (each.version, each.priority, each.table, each.mark, each.to, each.shortest)
            for each in host.rules
            if each.is_like_ours
        }
        self._routes: dict[tuple[int, int, int], set[object]] = {}

    def lacks(self, change: Change) -> bool:
        """Whether a setting has gone, and can be made again now.

        Always False for other kinds of settings, which other programs may change.
        """
        match change:
            case Address():
                interface = change.address
                key = (change.device, str(interface.ip), interface.network)
                return self._can_have(change.device, interface.version) and key not in self._addresses
            case Route():
                network = change.network
                if not self._can_have(change.device, network.version):
                    return False
                return network not in self._routes_of(network.version, change.table, self._links[change.device].number)
            case Rule():
                key6 = (change.version, change.priority, change.table, change.without, change.to, change.shortest)
                return key6 not in self._rules
            case BridgePort():
                link = self._links.get(change.device)
                return link is not None and not link.master and change.bridge in self._links
        return False

    def _can_have(self, device: str, version: int) -> bool:
        link = self._links.get(device)
        return link is not None and link.is_up and (version == 4 or link.has_ipv6)

    def _routes_of(self, version: int, table: int, device: int) -> set[object]:
        key = (version, table, device)
        if key not in self._routes:
            self._routes[key] = {each.network for each in self._netlink.found_routes(*key)}
        return self._routes[key]


def named(change: Change) -> str:
    """Name a change in a message."""
    match change:
        case Address():
            return f"the address {change.address}"
        case Route():
            return f"the route to {change.network}"
        case Rule():
            return f"rule {change.priority} of IPv{change.version}"
        case BridgePort():
            return f"the place of {change.device} in the bridge {change.bridge}"
    return type(change).__name__


def _gather(read: Callable[[], Iterator[Found]], into: list[Found]) -> Iterator[None]:
    """Read a list step by step, again if it has changed meanwhile. Raises OSError."""
    for tries_left in reversed(range(MOST_TRIES)):
        into.clear()
        try:
            for each in read():
                into.append(each)
                if not len(into) % 16:
                    yield
            return
        except Interrupted:
            if not tries_left:
                raise
