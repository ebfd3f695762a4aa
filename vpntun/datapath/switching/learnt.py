"""What a switch has learnt at each of its ports, for those who show it: how many MAC addresses, and the latest."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from vpntun.core.mac_table import MacTable
from vpntun.link.link import Link

MOST_LISTED = 32
"""MAC addresses of each port that are listed, those seen last. All are counted."""


@dataclass
class LearntMacs:
    """MAC addresses at one port. `latest`: address and seconds since it was last seen, the latest last."""

    count: int = 0
    latest: deque[tuple[bytes, float]] = field(default_factory=lambda: deque(maxlen=MOST_LISTED))


MacsOfPorts = Mapping[object, LearntMacs]
"""By port, a link or LOCAL. A port without addresses is not in it."""


def macs_of_ports(table: MacTable[Link], now: float) -> MacsOfPorts:
    """Return the MAC addresses that are in a table, by port."""
    found: dict[object, LearntMacs] = {}
    for address, port, seconds in table.entries(now):
        learnt = found.setdefault(port, LearntMacs())
        learnt.count += 1
        learnt.latest.append((address, seconds))
    return found
