"""Distributor: sends packets that are for several links, whose records the bundler can only build one after another.

Packets for the link whose record is being built enter it at once. Those for other links are copied and put aside, and
enter records at the next `flush`. So packets that alternate between several links take one record for each link, not
one for each packet.
"""

from __future__ import annotations

from collections.abc import Callable

from vpntun.datapath.sending.bundler import Bundler
from vpntun.errors import BadPacket
from vpntun.link.link import Link


class Distributor:
    """Distributor of one bundler.

    `add` sends a packet to the link that the bundler has selected: `Bundler.add`, or the mirror in front of it
    (mirror.py).
    """

    def __init__(self, bundler: Bundler) -> None:
        self._bundler = bundler
        self.add: Callable[[memoryview, int], None] = bundler.add
        self._aside: dict[Link, list[tuple[bytes, int]]] = {}
        self._is_used = False
        """Whether packets have come since the last `flush`."""

    def send(self, link: Link, packet: memoryview, field: int) -> None:
        """Send a packet to a link, at the next `flush` at the latest. `field`: its segment field."""
        if self._bundler.link is link or (self._bundler.link is None and link not in self._aside):
            self._enter(link, packet, field)
        else:
            self.put_aside(link, packet, field)

    def put_aside(self, link: Link, packet: bytes | memoryview, field: int) -> None:
        """Send a packet to a link at the next `flush`: a copy, unless it is bytes, which several links may share."""
        self._is_used = True
        self._aside.setdefault(link, []).append((bytes(packet), field))

    def flush(self) -> None:
        """Send all packets, link by link, now that no more are at hand."""
        if self._is_used:
            self.send_all()
            self._bundler.drained()

    def send_all(self) -> None:
        """Send all packets, those of the device that the bundler holds too. More may be at hand."""
        self._bundler.flush()
        while self._aside:
            link, packets = self._aside.popitem()
            for packet, field in packets:
                self._enter(link, memoryview(packet), field)
            self._bundler.flush()
        self._is_used = False

    def discard(self) -> None:
        """Drop the packets that were put aside, after an error has interrupted this."""
        self._aside.clear()
        self._is_used = False

    def _enter(self, link: Link, packet: memoryview, field: int) -> None:
        bundler = self._bundler
        self._is_used = True
        bundler.note_more(link)  # a record sent before this packet was sent because it was full
        try:
            if bundler.link is not link:
                bundler.turn_to(link)
            self.add(packet, field)
        except BadPacket as bad:
            link.drops[bad.reason] += 1
