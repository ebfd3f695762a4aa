"""What was sent in a session, counter by counter, since the last REPORT: at most 65,536 counters.

A REPORT names its highest counter; this says when that one was sent, and how many datagrams and bytes had been sent up
to it, to the datagram. Three rings written in place, since this runs once a record. They grow with what was sent and
not reported, so that a thousand peers that say little take little, and a fast path with a long round trip has the
second of datagrams that its REPORTs are late.

Counters that nobody told of carried no packets (keepalives, HELLO, REPORT, PROBE, ECHO): each a datagram of no weight.
"""

from __future__ import annotations

from array import array
from math import inf
from operator import sub

MOST = 65536
FIRST_SIZE = 64


class SentLog:
    """The records of one session. `next` is the counter after the last one told of; the totals include all before."""

    __slots__ = ("_bytes_to", "_datagrams_to", "_mask", "_oldest", "_room", "_times", "bytes", "datagrams", "next")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new session."""
        self._times = array("d")
        self._datagrams_to = array("Q")
        self._bytes_to = array("Q")
        self._mask = -1  # the places less one, a power of two; a counter's is counter & _mask
        self._oldest = 0
        self._room: float = 0
        """The first counter that has no place beside the oldest; infinite where there are as many places as ever."""
        self.next = self.datagrams = self.bytes = 0

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """A record with packets went out: `size` in bytes, `now` in seconds."""
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
        """So many records with packets went out from the counter `first` on, a datagram each.

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
        """The counters below this one that were not told of are used by now, too."""
        first = max(self.next, counter - MOST)
        self.datagrams += first - self.next
        if first < counter:
            self._append(first, counter - first, 0, now)

    def _append(self, first: int, count: int, size: int, now: float) -> None:
        """From the counter `first` on so many records went out, each in one datagram of `size` bytes."""
        if first + count > self._room:
            self._make_room(first + count - 1)
        self.next = first + count
        while count:
            at = first & self._mask
            some = min(count, self._mask + 1 - at)
            self._times[at : at + some] = array("d", (now,)) * some
            self._datagrams_to[at : at + some] = array("Q", range(self.datagrams + 1, self.datagrams + some + 1))
            if size:
                totals = array("Q", range(self.bytes + size, self.bytes + some * size + 1, size))
            else:
                totals = array("Q", (self.bytes,)) * some
            self._bytes_to[at : at + some] = totals
            self.datagrams += some
            self.bytes += some * size
            first += some
            count -= some

    def knows(self, counter: int) -> bool:
        """Whether this counter was sent, not too long ago, and is not forgotten."""
        return max(self._oldest, self.next - self._mask - 1) <= counter < self.next

    def forget_below(self, counter: int) -> None:
        """What was sent before this counter will not be asked for again: others may take its places."""
        self._oldest = max(0, counter)
        self._room = self._oldest + self._mask + 1

    def time_of(self, counter: int) -> float:
        """When it was sent; the counter is known, here and below."""
        return self._times[counter & self._mask]

    def had_packets(self, counter: int) -> bool:
        """Whether this known counter was told of; the one before it is known, too."""
        former = self._bytes_to[counter - 1 & self._mask] if counter else 0
        return self._bytes_to[counter & self._mask] > former

    def datagrams_to(self, counter: int) -> int:
        """Datagrams sent up to it and with it."""
        return self._datagrams_to[counter & self._mask]

    def bytes_to(self, counter: int) -> int:
        """Bytes sent up to it and with it."""
        return self._bytes_to[counter & self._mask]

    def singles(self, after: int, until: int) -> int:
        """How many of the known counters behind `after` and up to `until` went in one datagram."""
        return self._steps(self._datagrams_to, after, until).count(1)

    def short(self, after: int, until: int, size: int) -> int:
        """How many of the known counters behind `after` and up to `until` had no more than `size` bytes."""
        return sum(step <= size for step in self._steps(self._bytes_to, after, until))

    def _steps(self, column: array[int], after: int, until: int) -> list[int]:
        """What each of the known counters behind `after` and up to `until` has added to the totals of a column."""
        oldest = self.next - self._mask - 1  # what it added is not known, as the one before it is gone
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
        """Have a place for this counter beside the oldest, if there are fewer places than ever."""
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
