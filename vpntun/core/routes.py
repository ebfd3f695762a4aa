"""The route table: peer CIDRs (allowed IPs) to links, longest prefix first, used both ways.

The destination of a packet from the device chooses the link; the source of a packet from a link must lead back to it.
One dictionary a prefix length: a look-up costs at most as many steps as there are different lengths in use, whatever
the number of prefixes. Recent answers are kept, a bounded number of them, until a prefix is added.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Generic, TypeVar

Network = IPv4Network | IPv6Network
Link = TypeVar("Link")

MOST_KNOWN = 4096


class RouteTable(Generic[Link]):
    """Prefixes of both IP versions, told apart by the length of an address: 4 or 16 bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, Link | None] = {}
        self._levels: dict[int, list[tuple[int, dict[int, Link]]]] = {4: [], 16: []}

    def add(self, network: Network, link: Link) -> None:
        """Lead `network` to `link`; an identical prefix that led elsewhere moves."""
        self._known.clear()
        shift = network.max_prefixlen - network.prefixlen
        prefix = int(network.network_address) >> shift
        levels = self._levels[network.max_prefixlen // 8]
        for level_shift, prefixes in levels:
            if level_shift == shift:
                prefixes[prefix] = link
                return
        levels.append((shift, {prefix: link}))
        levels.sort(key=lambda level: level[0])

    def find(self, address: bytes) -> Link | None:
        """The link that the longest prefix over `address` (4 or 16 bytes) leads to, or None."""
        try:
            return self._known[address]
        except KeyError:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            link = self._known[address] = self._search(address)
            return link

    def _search(self, address: bytes) -> Link | None:
        number = int.from_bytes(address, "big")
        for shift, prefixes in self._levels[len(address)]:
            link = prefixes.get(number >> shift)
            if link is not None:
                return link
        return None
