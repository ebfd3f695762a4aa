"""The route table: maps peers' CIDRs (allowed IPs) to links; the longest matching prefix wins.

It serves both directions: the destination of a packet from the device chooses the link, and the source of a packet from
a link must lead back to that link.

    levels     one dictionary per prefix length: a look-up takes at most as many steps as there are different lengths in
               use, whatever the number of prefixes
    recent     a cache of a bounded number of answers, emptied when the table changes, like the caches of others that
               follow from it (`empty_on_change`). One peer's look-ups cannot change another's answer; a flood of
               different addresses only makes look-ups cost what they cost without a cache
    by link    the prefixes that lead to each link, so that removing a link does not visit the others' prefixes

`scripts/routes` measures it. A cached answer takes about 50 ns. A search takes 1 to 2 us with the dozen lengths that
operators use, and 10 us with all 129 of IPv6. The Patricia tries available as C libraries search in about 1 us, but
would need the same cache in front of them, and would save next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, Protocol, TypeVar

from vpntun.types import Network

Link = TypeVar("Link")

MOST_KNOWN = 4096


class Cache(Protocol):
    """A cache that can be emptied."""

    def clear(self) -> None:
        """Forget everything."""


class RouteTable(Generic[Link]):
    """Prefixes of both IP versions, told apart by the length of an address: 4 or 16 bytes."""

    def __init__(self) -> None:
        self._recent: dict[bytes, Link | None] = _RecentAnswers(self._search)
        self._caches: list[Cache] = [self._recent]
        self.find: Callable[[bytes], Link | None] = self._recent.__getitem__
        """Return the link to which the longest prefix that covers an address (4 or 16 bytes) leads, or None."""
        # By address size in bytes, then by the number of host bits, the fewest first.
        self._levels: dict[int, dict[int, dict[int, Link]]] = {4: {}, 16: {}}
        self._by_link: dict[Link, dict[tuple[int, int], set[int]]] = {}

    def empty_on_change(self, cache: Cache) -> None:
        """Empty a cache of what was concluded from this table whenever the table changes."""
        self._caches.append(cache)

    def empty_caches(self) -> None:
        """Empty every cache."""
        for cache in self._caches:
            cache.clear()

    def __len__(self) -> int:
        """The number of prefixes."""
        return sum(len(prefixes) for levels in self._levels.values() for prefixes in levels.values())

    def add(self, network: Network, link: Link) -> None:
        """Route `network` to `link`; an identical prefix that led to another link moves."""
        self.empty_caches()
        size, shift, prefix = _key_of(network)
        prefixes = self._levels[size].get(shift)
        if prefixes is None:
            prefixes = {}
            self._levels[size] = dict(sorted([*self._levels[size].items(), (shift, prefixes)]))
        former = prefixes.get(prefix)
        if former is not None:
            self._by_link[former][size, shift].remove(prefix)
        prefixes[prefix] = link
        self._by_link.setdefault(link, {}).setdefault((size, shift), set()).add(prefix)

    def remove(self, network: Network) -> None:
        """Remove exactly this prefix, if it is there; wider ones that cover it remain."""
        self.empty_caches()
        size, shift, prefix = _key_of(network)
        link = self._levels[size].get(shift, {}).get(prefix)
        if link is not None:
            self._by_link[link][size, shift].remove(prefix)
            self._drop(size, shift, {prefix})

    def covers(self, address: bytes) -> bool:
        """Return whether any prefix covers an address (4 or 16 bytes)."""
        return self.find(address) is not None

    def owner(self, network: Network) -> Link | None:
        """Return the link to which exactly this prefix leads, whatever wider ones do."""
        size, shift, prefix = _key_of(network)
        return self._levels[size].get(shift, {}).get(prefix)

    def remove_all(self, link: Link) -> None:
        """Remove every prefix that leads to `link`."""
        self.empty_caches()
        for (size, shift), prefixes in self._by_link.pop(link, {}).items():
            self._drop(size, shift, prefixes)

    def networks_of(self, link: Link) -> list[Network]:
        """The prefixes that lead to `link`: IPv4 before IPv6, sorted by address, wider ones first."""
        found = [
            (size, prefix << shift, size * 8 - shift)
            for (size, shift), prefixes in self._by_link.get(link, {}).items()
            for prefix in prefixes
        ]
        return [(IPv4Network if size == 4 else IPv6Network)((number, length)) for size, number, length in sorted(found)]

    def _search(self, address: bytes) -> Link | None:
        number = int.from_bytes(address, "big")
        for shift, prefixes in self._levels[len(address)].items():
            link = prefixes.get(number >> shift)
            if link is not None:
                return link
        return None

    def _drop(self, size: int, shift: int, prefixes: set[int]) -> None:
        """Remove prefixes from one level, and the level once it is empty: it would cost every look-up a step."""
        level = self._levels[size]
        for prefix in prefixes:
            del level[shift][prefix]
        if prefixes and not level[shift]:
            del level[shift]


class _RecentAnswers(dict[bytes, "Link | None"]):
    """A cache of answers that searches for a missing one; finding a cached one calls no Python code."""

    def __init__(self, search: Callable[[bytes], Link | None]) -> None:
        self._search = search

    def __missing__(self, address: bytes) -> Link | None:
        if len(self) >= MOST_KNOWN:
            self.clear()
        link = self[address] = self._search(address)
        return link


def _key_of(network: Network) -> tuple[int, int, int]:
    """Address size in bytes, number of host bits, and the prefix's bits as a number."""
    shift = network.max_prefixlen - network.prefixlen
    return network.max_prefixlen // 8, shift, int(network.network_address) >> shift
