"""The table of a switch: at which port each MAC address was last seen as a source.

    claim    A frame from an address has come in at a port. The port gets the address, unless another port has it and
             has shown so lately: in the last 300 s if both are peers, in the last 15 s between a peer and this side. So
             no peer takes over what another one uses. A machine that has moved is believed once its former place was
             silent for that long. It is short between a peer and this side, because a second path between two networks
             moves all of them at once, whenever it comes or goes.
    bound    4,096 addresses. In a full table each port keeps an equal share: a port with less takes the place of the
             oldest address of the port that has most, and a port with more that of its own oldest one.

The port is a link, or LOCAL for this side of the tunnel: the device, and the bridge that it may be in. Times are
seconds of the caller's clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from typing import Final, Generic, Literal, TypeVar

from vpntun.core.routes import Cache

Peer = TypeVar("Peer")

AGE = 300.0
"""Seconds after which an address that was not seen again is forgotten (IEEE 802.1Q's ageing time)."""
LOCAL_PATIENCE = 15.0
"""Seconds of silence at a peer after which this side may claim its address, or the other way round. A loop brings
frames back much sooner, and STP takes as long to use another path."""
MOST = 4096


class OwnSide(Enum):
    """This side of the tunnel, as a port."""

    LOCAL = "own side"


LOCAL: Final = OwnSide.LOCAL


class MacTable(Generic[Peer]):
    """MAC addresses (6 bytes) of all ports, `most` at a time."""

    def __init__(self, most: int = MOST) -> None:
        self._port_of: dict[bytes, Peer | Literal[OwnSide.LOCAL]] = {}
        self._seen: dict[Peer | Literal[OwnSide.LOCAL], OrderedDict[bytes, float]] = {}
        """When each address of a port was last seen, the oldest first. A dict takes long to find its oldest key after
        others were removed."""
        self._pinned: frozenset[bytes] = frozenset()
        self._most = self._share = most
        self._caches: list[Cache] = []

    def __len__(self) -> int:
        """The number of addresses, old ones included."""
        return len(self._port_of)

    def empty_on_change(self, cache: Cache) -> None:
        """Empty a cache of what was concluded from this table whenever an address loses its port."""
        self._caches.append(cache)

    def empty_caches(self) -> None:
        """Empty every cache."""
        for cache in self._caches:
            cache.clear()

    def pin(self, *addresses: bytes) -> None:
        """Keep addresses of this machine itself for LOCAL, in place of those pinned before. No peer can claim them."""
        self._pinned = frozenset(addresses)
        for address in self._pinned:
            self._drop(address)

    def share_among(self, ports: int) -> None:
        """Divide a full table among this many ports."""
        self._share = max(1, self._most // max(1, ports))

    def claim(self, address: bytes, port: Peer | Literal[OwnSide.LOCAL], now: float) -> bool:
        """Note that an address was seen at a port; return False if it belongs to another port."""
        if address in self._pinned:
            return port is LOCAL
        owner = self._port_of.get(address)
        if owner is port:
            self._seen[port][address] = now
            self._seen[port].move_to_end(address)
            return True
        if owner is not None:
            patience = LOCAL_PATIENCE if port is LOCAL or owner is LOCAL else AGE
            if now - self._seen[owner][address] < patience:
                return False
            self._drop(address)
        self._make_room(port)
        if port not in self._seen:
            self._seen[port] = OrderedDict()
        self._seen[port][address] = now
        self._port_of[address] = port
        return True

    def find(self, address: bytes, now: float) -> Peer | Literal[OwnSide.LOCAL] | None:
        """Return the port that has an address; None if it is unknown, or was not seen for too long."""
        if address in self._pinned:
            return LOCAL
        port = self._port_of.get(address)
        if port is not None and now - self._seen[port][address] >= AGE:
            self._drop(address)
            return None
        return port

    def forget(self, port: Peer | Literal[OwnSide.LOCAL]) -> None:
        """Forget all addresses of a port."""
        for address in self._seen.pop(port, {}):
            del self._port_of[address]
        self.empty_caches()

    def forget_old(self, now: float) -> None:
        """Forget the addresses that were not seen for too long."""
        for seen in self._seen.values():
            while seen and now - seen[oldest := next(iter(seen))] >= AGE:
                self._drop(oldest)

    def entries(self, now: float) -> Iterator[tuple[bytes, Peer | Literal[OwnSide.LOCAL], float]]:
        """Yield each address that is not too old, its port, and the seconds since it was last seen, 0 if it is pinned.

        The pinned ones come first, then those of each port, the oldest first.
        """
        yield from ((address, LOCAL, 0.0) for address in sorted(self._pinned))
        for port, seen in self._seen.items():
            yield from ((address, port, now - at) for address, at in seen.items() if now - at < AGE)

    def _make_room(self, port: Peer | Literal[OwnSide.LOCAL]) -> None:
        """Forget an address if the table is full, so that the port can have one more."""
        if len(self._port_of) < self._most:
            return
        own = self._seen.get(port)
        seen = own if own is not None and len(own) >= self._share else max(self._seen.values(), key=len)
        oldest, _ = seen.popitem(last=False)
        del self._port_of[oldest]
        self.empty_caches()

    def _drop(self, address: bytes) -> None:
        """Forget an address, and all that was concluded from its port."""
        port = self._port_of.pop(address, None)
        if port is not None:
            del self._seen[port][address]
            self.empty_caches()
