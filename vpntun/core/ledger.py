"""What was sent in a session, counter by counter, for as long as a report of it may still come: the last 16,384.

A REPORT names its highest counter; this says when that one was sent, and how many datagrams and bytes had been sent up
to it, to the datagram. Three arrays written in place, since this runs once a record; they grow with what a session
sends, so that a thousand peers that say little take little.

Counters that nobody told of carried no packets (keepalives, HELLO, REPORT, PROBE, ECHO): each a datagram of no weight.
"""

from __future__ import annotations

from array import array
from math import inf
from operator import sub

SIZE = 16384
FIRST_SIZE = 64
_MASK = SIZE - 1


class Ledger:
    """The records of one session. `next` is the counter after the last one told of; the totals include all before."""

    __slots__ = ("_bytes_to", "_datagrams_to", "_room", "_times", "bytes", "datagrams", "next")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new session."""
        self._times = array("d")
        self._datagrams_to = array("Q")
        self._bytes_to = array("Q")
        self._room: float = 0
        """The first counter that there is no place for; infinite as soon as there are as many places as ever."""
        self.next = self.datagrams = self.bytes = 0

    def sent(self, counter: int, datagrams: int, size: int, now: float) -> None:
        """A record with packets went out: `size` in bytes, `now` in seconds."""
        if counter != self.next:
            self.fill(counter, now)
        if counter >= self._room:
            self._make_room(counter)
        self.next = counter + 1
        at = counter & _MASK
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
        self._bytes_to[first + count - 1 & _MASK] = self.bytes = self.bytes + size - each * count

    def fill(self, counter: int, now: float) -> None:
        """The counters below this one that were not told of are used by now, too."""
        first = max(self.next, counter - SIZE)
        self.datagrams += first - self.next
        if first < counter:
            self._append(first, counter - first, 0, now)

    def _append(self, first: int, count: int, size: int, now: float) -> None:
        """From the counter `first` on so many records went out, each in one datagram of `size` bytes."""
        if first + count > self._room:
            self._make_room(first + count - 1)
        self.next = first + count
        while count:
            at = first & _MASK
            some = min(count, SIZE - at)
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
        """Whether this counter was sent, and not too long ago."""
        return self.next - SIZE <= counter < self.next and counter >= 0

    def time_of(self, counter: int) -> float:
        """When it was sent; the counter is known, here and below."""
        return self._times[counter & _MASK]

    def had_packets(self, counter: int) -> bool:
        """Whether this known counter was told of; the one before it is known, too."""
        former = self._bytes_to[counter - 1 & _MASK] if counter else 0
        return self._bytes_to[counter & _MASK] > former

    def datagrams_to(self, counter: int) -> int:
        """Datagrams sent up to it and with it."""
        return self._datagrams_to[counter & _MASK]

    def bytes_to(self, counter: int) -> int:
        """Bytes sent up to it and with it."""
        return self._bytes_to[counter & _MASK]

    def singles(self, after: int, until: int) -> int:
        """How many of the known counters behind `after` and up to `until` went in one datagram."""
        return self._steps(self._datagrams_to, after, until).count(1)

    def short(self, after: int, until: int, size: int) -> int:
        """How many of the known counters behind `after` and up to `until` had no more than `size` bytes."""
        return sum(step <= size for step in self._steps(self._bytes_to, after, until))

    def _steps(self, column: array[int], after: int, until: int) -> list[int]:
        """What each of the known counters behind `after` and up to `until` has added to the totals of a column."""
        first = max(after + 1, self.next - SIZE + 1, 0)
        if first > until:
            return []
        totals = array("Q", (column[first - 1 & _MASK] if first else 0,))
        begin, end = first & _MASK, until + 1 & _MASK
        if begin < end:
            totals += column[begin:end]
        else:
            totals += column[begin:]
            totals += column[:end]
        return list(map(sub, totals[1:], totals))

    def _make_room(self, counter: int) -> None:
        """Have a place for this counter: twice as many as it takes."""
        size = min(SIZE, max(FIRST_SIZE, 2 * counter))
        for column in (self._times, self._datagrams_to, self._bytes_to):
            column.frombytes(bytes(8 * (size - len(column))))
        self._room = size if size < SIZE else inf
