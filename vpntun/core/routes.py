"""The route table: peer CIDRs (allowed IPs) to links, longest prefix first, used both ways.

The destination of a packet from the device chooses the link; the source of a packet from a link must lead back to it.

    levels    one dictionary a prefix length: a look-up costs at most as many steps as there are different lengths in
              use, whatever the number of prefixes
    known     recent answers, a bounded number of them, until the table is changed. What one peer asks for cannot change
              another's answer; many different addresses only make answers cost what they cost without it
    held      what leads to each link, so that a link goes without a look at the others' prefixes

`scripts/routes` measures it. A kept answer takes some 50 ns; to find one takes 1 to 2 us with the dozen lengths that
operators use, and 10 us with all 129 of IPv6. The patricia tries that there are as libraries, in C, find one in about 1
us, but would need the same kept answers before them, and would save next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

from vpntun.types import Network

Link = TypeVar("Link")

MOST_KNOWN = 4096


class RouteTable(Generic[Link]):
    """Prefixes of both IP versions, told apart by the length of an address: 4 or 16 bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, Link | None] = _Known(self._search)
        self.find: Callable[[bytes], Link | None] = self._known.__getitem__
        """The link that the longest prefix over an address (4 or 16 bytes) leads to, or None."""
        # By bytes of address, then by the bits that do not count, the fewest first.
        self._levels: dict[int, dict[int, dict[int, Link]]] = {4: {}, 16: {}}
        self._held: dict[Link, dict[tuple[int, int], set[int]]] = {}

    def __len__(self) -> int:
        """How many prefixes there are."""
        return sum(len(prefixes) for levels in self._levels.values() for prefixes in levels.values())

    def add(self, network: Network, link: Link) -> None:
        """Lead `network` to `link`; an identical prefix that led elsewhere moves."""
        self._known.clear()
        size, shift, prefix = _place_of(network)
        prefixes = self._levels[size].get(shift)
        if prefixes is None:
            prefixes = {}
            self._levels[size] = dict(sorted([*self._levels[size].items(), (shift, prefixes)]))
        former = prefixes.get(prefix)
        if former is not None:
            self._held[former][size, shift].remove(prefix)
        prefixes[prefix] = link
        self._held.setdefault(link, {}).setdefault((size, shift), set()).add(prefix)

    def remove(self, network: Network) -> None:
        """Lead `network`, this very prefix, nowhere; wider ones that cover it stand."""
        self._known.clear()
        size, shift, prefix = _place_of(network)
        link = self._levels[size].get(shift, {}).get(prefix)
        if link is not None:
            self._held[link][size, shift].remove(prefix)
            self._drop(size, shift, {prefix})

    def remove_all(self, link: Link) -> None:
        """Lead nothing to `link` any more."""
        self._known.clear()
        for (size, shift), prefixes in self._held.pop(link, {}).items():
            self._drop(size, shift, prefixes)

    def networks_of(self, link: Link) -> list[Network]:
        """What leads to `link`: IPv4 before IPv6, by address, the wider first."""
        found = [
            (size, prefix << shift, size * 8 - shift)
            for (size, shift), prefixes in self._held.get(link, {}).items()
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
        """Forget prefixes of one level, and the level when it is empty: it would cost every look-up a step."""
        level = self._levels[size]
        for prefix in prefixes:
            del level[shift][prefix]
        if prefixes and not level[shift]:
            del level[shift]


class _Known(dict[bytes, "Link | None"]):
    """Answers, found when they are asked for; the interpreter finds a kept one without a call of ours."""

    def __init__(self, search: Callable[[bytes], Link | None]) -> None:
        self._search = search

    def __missing__(self, address: bytes) -> Link | None:
        if len(self) >= MOST_KNOWN:
            self.clear()
        link = self[address] = self._search(address)
        return link


def _place_of(network: Network) -> tuple[int, int, int]:
    """Bytes of address, bits that do not count, and those that do as a number."""
    shift = network.max_prefixlen - network.prefixlen
    return network.max_prefixlen // 8, shift, int(network.network_address) >> shift
