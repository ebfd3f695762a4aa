"""Log of the records sent in a session since the last REPORT, by counter: at most 65,536 counters.

A REPORT names its highest counter. The log tells when that record was sent, and exactly how many datagrams and bytes
had been sent up to it. It consists of three rings written in place, since it is updated once a record. They grow with
the number of records sent and not reported: a thousand quiet peers take little memory, and a fast path with a long
round trip, whose REPORTs are a second late, has room for a second of datagrams.

Counters that were not noted carried no packets (keepalives, HELLO, REPORT, PROBE, ECHO): each counts as one datagram
of no bytes.
"""

from __future__ import annotations

from array import array
from math import inf
from operator import sub

MOST = 65536
FIRST_SIZE = 64


class SentLog:
    """The records of one session. `next` is the counter after the last one noted; the totals include all before it."""

    __slots__ = ("_bytes_to", "_datagrams_to", "_mask", "_oldest", "_room", "_times", "bytes", "datagrams", "next")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start at zero, for a new session."""
        self._times = array("d")
        self._datagrams_to = array("Q")
        self._bytes_to = array("Q")
        self._mask = -1  # number of places, a power of two, less one; a counter's place is counter & _mask
        self._oldest = 0
        self._room: float = 0
        """First counter that has no place beside the oldest; infinite once the rings have their full size."""
        self.next = self.datagrams = self.bytes = 0

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """Note that a record with packets was sent. `size`: bytes; `now`: seconds."""
        if counter != self.next:
            self.fill(counter, now)
        if counter >= self._room:
            self._make_room(counter)
        self.next = counter + 1
        at = counter & self._mask
        self._times[at] = now
        self.datagrams = self._datagrams_to[at] = self.datagrams + datagrams
        self.bytes = self._bytes_to[at] = self.bytes + size

    def sent_singles(self, first: int, count: int, each: int, size: int, now: float) -> None:
        """Note that `count` records with packets were sent from the counter `first` on, one datagram each.

        `each`: bytes of all but the last, which may be shorter; `size`: bytes of all together.
        """
        if count == 1:
            self.sent(first, 1, size, now)
            return
        if first != self.next:
            self.fill(first, now)
        self._append(first, count, each, now)
        self._bytes_to[first + count - 1 & self._mask] = self.bytes = self.bytes + size - each * count

    def fill(self, counter: int, now: float) -> None:
        """Note that the counters below this one are used by now, including those that were not noted."""
        first = max(self.next, counter - MOST)
        self.datagrams += first - self.next
        if first < counter:
            self._append(first, counter - first, 0, now)

    def _append(self, first: int, count: int, size: int, now: float) -> None:
        """Append `count` records from the counter `first` on, each sent in one datagram of `size` bytes."""
        if first + count > self._room:
            self._make_room(first + count - 1)
        self.next = first + count
        while count:
            at = first & self._mask
            part = min(count, self._mask + 1 - at)
            self._times[at : at + part] = array("d", (now,)) * part
            self._datagrams_to[at : at + part] = array("Q", range(self.datagrams + 1, self.datagrams + part + 1))
            if size:
                totals = array("Q", range(self.bytes + size, self.bytes + part * size + 1, size))
            else:
                totals = array("Q", (self.bytes,)) * part
            self._bytes_to[at : at + part] = totals
            self.datagrams += part
            self.bytes += part * size
            first += part
            count -= part

    def knows(self, counter: int) -> bool:
        """Whether this counter was sent recently enough and is not forgotten."""
        return max(self._oldest, self.next - self._mask - 1) <= counter < self.next

    def forget_below(self, counter: int) -> None:
        """Let others take the places of the counters below this one, which are not needed any more."""
        self._oldest = max(0, counter)
        self._room = self._oldest + self._mask + 1

    def time_of(self, counter: int) -> float:
        """When the counter was sent. Here and below, the counter must be known (`knows`)."""
        return self._times[counter & self._mask]

    def had_packets(self, counter: int) -> bool:
        """Whether the counter was noted as having packets. The one before it must be known, too."""
        former = self._bytes_to[counter - 1 & self._mask] if counter else 0
        return self._bytes_to[counter & self._mask] > former

    def datagrams_to(self, counter: int) -> int:
        """Number of datagrams sent up to and including the counter."""
        return self._datagrams_to[counter & self._mask]

    def bytes_to(self, counter: int) -> int:
        """Number of bytes sent up to and including the counter."""
        return self._bytes_to[counter & self._mask]

    def singles(self, after: int, until: int) -> int:
        """Number of the known counters after `after`, up to `until`, that were sent in one datagram."""
        return self._steps(self._datagrams_to, after, until).count(1)

    def short(self, after: int, until: int, size: int) -> int:
        """Number of the known counters after `after`, up to `until`, that had at most `size` bytes."""
        return sum(step <= size for step in self._steps(self._bytes_to, after, until))

    def _steps(self, column: array[int], after: int, until: int) -> list[int]:
        """Return what each known counter after `after`, up to `until`, added to the totals of a column."""
        oldest = self.next - self._mask - 1  # how much it added is unknown, since the one before it is gone
        first = max(after + 1, oldest + 1 if oldest > 0 else 0)
        if first > until:
            return []
        totals = array("Q", (column[first - 1 & self._mask] if first else 0,))
        begin, end = first & self._mask, until + 1 & self._mask
        if begin < end:
            totals += column[begin:end]
        else:
            totals += column[begin:]
            totals += column[:end]
        return list(map(sub, totals[1:], totals))

    def _make_room(self, counter: int) -> None:
        """Grow the rings so that this counter has a place beside the oldest, up to their full size."""
        size = self._mask + 1
        if not size:
            size = FIRST_SIZE
            for column in (self._times, self._datagrams_to, self._bytes_to):
                column.frombytes(bytes(8 * size))
        while size < MOST and counter >= self._oldest + size:
            size *= 2
            for column in (self._times, self._datagrams_to, self._bytes_to):
                column *= 2  # each counter has its place in one half or in the other
        self._mask = size - 1
        self._room = self._oldest + size if size < MOST else inf
