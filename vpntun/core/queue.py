"""A link's queue: unsealed packets and superpackets that wait for a session or for a blocked carrier.

    in      The queue is full at a number of bytes, a number of entries, or 10 ms of the measured rate. As many of the
            oldest are then dropped as necessary; the newest always stays, and so do a few entries at any rate.
    out     `take` applies CoDel (RFC 8289). When packets have waited over 5 ms each, for 100 ms without a break, one is
            dropped at the head, the next after 100 ms / sqrt(2), and so on, until a packet has waited less. CoDel
            ignores a queue that holds at most one superpacket.
            `pop_entry` returns the oldest.

While the rate is unknown, the queue may hold what may wait for a handshake (2 MiB). Entries are (packet, segment,
arrival); the segment is BUNDLE's field (wire/record.py). Sizes are bytes of IP packet, times are seconds of the
caller's clock.
"""

from __future__ import annotations

from collections import deque
from math import sqrt

MOST_BYTES = 4 * 1024 * 1024
MOST_ENTRIES = 4096
MOST_TIME = 0.010
FEW = 4
"""The number of entries that may wait at any rate."""

UNKNOWN_RATE_BYTES = 2 * 1024 * 1024

TARGET = 0.005
INTERVAL = 0.100
SUPERPACKET = 65_535

Entry = tuple[bytes, int, float]


class PacketQueue:
    """A first-in first-out queue that drops from the head.

    `dropped` counts all packets dropped, `late` those dropped by CoDel.
    """

    __slots__ = ("_bound", "_count", "_drop_at", "_dropping", "_entries", "_late_at", "dropped", "late", "size")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bound = UNKNOWN_RATE_BYTES
        self.size = 0
        """Total size in bytes of the waiting packets."""
        self.dropped = 0
        self.late = 0
        self._late_at = 0.0
        self._dropping = False
        self._drop_at = 0.0
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def follow(self, rate: float) -> None:
        """Adapt the bound to the link's rate in bytes per second; 0 means unknown."""
        self._bound = min(MOST_BYTES, int(rate * MOST_TIME)) if rate > 0 else UNKNOWN_RATE_BYTES

    def push(self, packet: bytes, segment: int = 0, now: float = 0.0) -> int:
        """Append a packet; return how many old ones were dropped to make room for it."""
        entries = self._entries
        self.size += len(packet)
        dropped = 0
        while entries and (
            (self.size > self._bound and len(entries) >= FEW) or self.size > MOST_BYTES or len(entries) >= MOST_ENTRIES
        ):
            self.size -= len(entries.popleft()[0])
            dropped += 1
        entries.append((packet, segment, now))
        self.dropped += dropped
        return dropped

    def pop_entry(self) -> Entry:
        """Remove and return the oldest packet, with its segment and arrival. Raises IndexError on an empty queue."""
        entry = self._entries.popleft()
        self.size -= len(entry[0])
        return entry

    def take(self, now: float) -> Entry | None:
        """Remove and return the next packet to send, by CoDel's rules; None if the queue is empty.

        Entries that CoDel drops first are counted in `dropped`.
        """
        entries = self._entries
        if not entries:
            self._late_at = 0.0
            self._dropping = False
            return None
        entry = self.pop_entry()
        if now - entry[2] < TARGET or self.size <= SUPERPACKET:
            self._late_at = 0.0
            self._dropping = False
            return entry
        if not self._late_at:
            self._late_at = now + INTERVAL
            return entry
        if now < self._late_at:
            return entry
        return self._drop_from(entry, now)

    def put_back(self, entry: Entry) -> None:
        """Return an entry from `take`, or a part of it, to the head of the queue: it could not be sent after all."""
        self._entries.appendleft(entry)
        self.size += len(entry[0])

    def clear(self) -> int:
        """Drop everything; return how many packets there were. `dropped` does not count them."""
        count = len(self._entries)
        self._entries.clear()
        self.size = 0
        self._late_at = 0.0
        self._dropping = False
        return count

    def _drop_from(self, entry: Entry, now: float) -> Entry:
        """Drop entries as CoDel requires once packets have been late for an interval (RFC 8289, section 5.5).

        `entry` has already been removed. Return it, or the entry to send in its place.
        """
        if not self._dropping:
            self._dropping = True
            recently = now - self._drop_at < 16 * INTERVAL
            self._count = self._count - 2 if recently and self._count > 2 else 1
            self._drop_at = now + INTERVAL / sqrt(self._count)
            self.dropped += 1
            self.late += 1
            return self.pop_entry()
        while now >= self._drop_at and self.size > SUPERPACKET:
            self.dropped += 1
            self.late += 1
            self._count += 1
            self._drop_at += INTERVAL / sqrt(self._count)
            entry = self.pop_entry()
            if now - entry[2] < TARGET:
                self._late_at = 0.0
                self._dropping = False
                break
        return entry
