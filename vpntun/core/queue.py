"""A link's queue: packets and superpackets that wait, unsealed, for a session or for a carrier that is blocked.

    in      full, in bytes, in entries or by 10 ms of the measured rate: the oldest go, as many as it takes; the newest
            always stays, and so does a handful, whatever the rate
    out     `take`: CoDel (RFC 8289). Packets that waited over 5 ms, for 100 ms on end: one is dropped at the head, the
            next after 100 ms / sqrt(2), and so on, until one comes that waited less. A queue that holds no more than
            one superpacket is left alone.
            `pop`: whatever is the oldest.

While the rate is not known the bound is what may wait for a handshake. Entries are (packet, segment, arrival): the
segment is BUNDLE's field (wire/record.py). Sizes are bytes of IP packet, times seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from math import sqrt

MOST_BYTES = 4 * 1024 * 1024
MOST_ENTRIES = 4096
MOST_TIME = 0.010
FEW = 4
"""Entries that may wait at any rate."""

UNKNOWN_RATE_BYTES = 2 * 1024 * 1024

TARGET = 0.005
INTERVAL = 0.100
SUPERPACKET = 65_535

Entry = tuple[bytes, int, float]


class PacketQueue:
    """First in, first out, drops from the head. `dropped` counts all packets dropped, `late` those by CoDel."""

    __slots__ = ("_bound", "_count", "_drop_at", "_dropping", "_entries", "_late_at", "dropped", "late", "size")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._bound = UNKNOWN_RATE_BYTES
        self.size = 0
        """Bytes that wait."""
        self.dropped = 0
        self.late = 0
        self._late_at = 0.0
        self._dropping = False
        self._drop_at = 0.0
        self._count = 0

    def __len__(self) -> int:
        return len(self._entries)

    def follow(self, rate: float) -> None:
        """The link delivers so many bytes a second; 0: not known."""
        self._bound = min(MOST_BYTES, int(rate * MOST_TIME)) if rate > 0 else UNKNOWN_RATE_BYTES

    def push(self, packet: bytes, segment: int = 0, now: float = 0.0) -> int:
        """Append a packet; returns how many old ones were dropped to make room for it."""
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

    def pop(self) -> bytes:
        """Take the oldest packet out. IndexError on an empty queue."""
        return self.pop_entry()[0]

    def pop_entry(self) -> Entry:
        """Take the oldest packet out, with its segment and arrival. IndexError on an empty queue."""
        entry = self._entries.popleft()
        self.size -= len(entry[0])
        return entry

    def take(self, now: float) -> Entry | None:
        """Take the next packet to send out, as CoDel sees fit; None: the queue is empty.

        Entries dropped on the way are counted in `dropped`.
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
        """Put what `take` gave, or a part of it, back to where it was: it could not leave after all."""
        self._entries.appendleft(entry)
        self.size += len(entry[0])

    def clear(self) -> int:
        """Drop everything, which `dropped` does not count; returns how many packets there were."""
        count = len(self._entries)
        self._entries.clear()
        self.size = 0
        self._late_at = 0.0
        self._dropping = False
        return count

    def _drop_from(self, entry: Entry, now: float) -> Entry:
        """Packets have been late for an interval: `entry`, already out, is sent or dropped (RFC 8289, section 5.5)."""
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
