"""A train of datagrams, read many at a time where the kernel does not coalesce them (no UDP_GRO on the path).

Each datagram has a slot: its first 16 bytes go to the header block, the rest behind the last slot's rest. So the pieces
of a burst that come in order, from whichever slot on, lie one behind the other, and its message needs only its header
before them: nothing is copied together. A datagram longer than a slot goes on in the slot's tail, which has room for
the longest there is: nobody's datagram is cut because another's are short.

    slot k      headers[16 k : 16 k + 16]   pieces[16 + k step : 16 + k step + step]   tails[k tail : k tail + tail]
                names[28 k : 28 k + 28]

    1. `room()`: from which slot on the next read goes
    2. the carrier reads, and says how many came and how long each is: `came(lengths)`
    3. `arrivals()` yields whole bursts, whole messages, and the pieces of bursts that are not in order, in their turn;
       a burst whose first pieces are there, and none but those, waits in place for its rest

Untrusted bytes; raises nothing. A burst that is yielded whole has every header of one message, in order, all datagrams
but the last of the full size, one source, and no more than 65,535 bytes; only opening it proves it genuine.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

from vpntun.wire.burst import MOST_DATAGRAMS, PROTECTED, headers_of, length_within
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST

SLOTS = 256
NAME_SIZE = 28
"""Of a sockaddr_in6, the longer of the two."""

_unpack = DATA_HEADER.unpack_from


class Train:
    """The slots for bursts in datagrams of `size` bytes; `headers`, `pieces`, `tails` and `names` are read into.

    `tail`: bytes of a slot's tail. Tails are mapped, not allocated: a page becomes resident when a long datagram first
    uses it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.step = size - HEADER_SIZE
        self.tail = LARGEST - size
        self.headers = bytearray(SLOTS * HEADER_SIZE)
        self.pieces = bytearray(HEADER_SIZE + SLOTS * self.step)
        self.tails = mmap.mmap(-1, SLOTS * self.tail)
        self.names = bytearray(SLOTS * NAME_SIZE)
        self._view = memoryview(self.pieces)
        self._long = memoryview(bytearray(LARGEST))
        self._lengths: list[int] = []
        self._begin = 0
        self._is_yielding = False

    def room(self) -> int:
        """The slot that the next read begins at; what waits has been moved to the front if that was needed.

        What waits are pieces of one burst, all of the full size, so no tails move. If `arrivals` was left half-way,
        what it had not yielded is dropped.
        """
        if self._is_yielding:
            self._begin = len(self._lengths)
            self._is_yielding = False
        end = len(self._lengths)
        if self._begin == end:
            self._begin = 0
            self._lengths.clear()
        elif SLOTS - end < MOST_DATAGRAMS:
            begin, self._begin = self._begin, 0
            del self._lengths[:begin]
            kept = end - begin
            self.headers[: kept * HEADER_SIZE] = self.headers[begin * HEADER_SIZE : end * HEADER_SIZE]
            self.names[: kept * NAME_SIZE] = self.names[begin * NAME_SIZE : end * NAME_SIZE]
            self._view[HEADER_SIZE : HEADER_SIZE + kept * self.step] = self._view[
                HEADER_SIZE + begin * self.step : HEADER_SIZE + end * self.step
            ]
        return len(self._lengths)

    def came(self, lengths: list[int]) -> None:
        """So many datagrams were read from `room()` on, each this long."""
        self._lengths += lengths

    def arrivals(self) -> Iterator[tuple[memoryview, int, bytes]]:
        """Yield (message or piece with its header, datagrams it came in, name of its source), in order.

        Each is valid until the next.
        """
        lengths, view, step = self._lengths, self._view, self.step
        self._is_yielding = True
        while self._begin < len(lengths):
            slot = self._begin
            length = lengths[slot]
            name = bytes(self.names[slot * NAME_SIZE : (slot + 1) * NAME_SIZE])
            begin = slot * step  # of the message, once its header stands before its piece
            if length >= HEADER_SIZE:
                word, receiver, counter = _unpack(self.headers, slot * HEADER_SIZE)
                count = self._count(slot, word, receiver, counter, name)
                if count < 0:
                    break
                if count:
                    self._begin = slot + count
                    DATA_HEADER.pack_into(view, begin, DATA, receiver, counter)
                    last = word >> 16 & 0xFF
                    size = last * step + lengths[slot + last]
                    if word & PROTECTED:
                        size = length_within(view[begin : begin + size], step)
                    yield view[begin : begin + size], count, name
                    continue
            self._begin = slot + 1
            if length > self.size:
                yield self._with_tail(slot, length), 1, name
                continue
            view[begin : begin + HEADER_SIZE] = self.headers[slot * HEADER_SIZE : (slot + 1) * HEADER_SIZE]
            yield view[begin : begin + length], 1, name
        self._is_yielding = False

    def _with_tail(self, slot: int, length: int) -> memoryview:
        """The datagram of a slot that is longer than the slot, put together."""
        size, piece, tail = self.size, HEADER_SIZE + slot * self.step, slot * self.tail
        long = self._long
        long[:HEADER_SIZE] = self.headers[slot * HEADER_SIZE : (slot + 1) * HEADER_SIZE]
        long[HEADER_SIZE:size] = self._view[piece : piece + self.step]
        long[size:length] = self.tails[tail : tail + length - size]
        return long[:length]

    def _count(self, slot: int, word: int, receiver: int, counter: int, name: bytes) -> int:
        """How many datagrams from `slot` on are one whole burst; 0: none is; -1: it may be, when its rest has come.

        The parity of a protected burst is one of them, if it is there; nobody waits for it.
        """
        rest, protected = word >> 16 & 0xFF, word & PROTECTED
        if word & ~PROTECTED != DATA | rest << 16 or not 0 < rest < MOST_DATAGRAMS - bool(protected):
            return 0
        least_of_last = self.step if protected else 1
        if HEADER_SIZE + rest * self.step + least_of_last > LARGEST:
            return 0
        headers = headers_of(DATA | protected, receiver, counter, rest + 1)
        there = min(rest + 1, len(self._lengths) - slot)
        full = there if protected else min(there, rest)
        if not self._are(slot, headers[: there * HEADER_SIZE], full, name):
            return 0
        if there <= rest:
            return -1
        if not HEADER_SIZE < self._lengths[slot + rest] <= min(self.size, LARGEST - rest * self.step):
            return 0
        behind = slot + there
        if protected and behind < len(self._lengths) and self._are(behind, headers[there * HEADER_SIZE :], 1, name):
            return there + 1
        return there

    def _are(self, slot: int, headers: bytearray, full: int, name: bytes) -> bool:
        """Whether the datagrams from `slot` on have these headers and this source, and the first the full size."""
        end = slot + len(headers) // HEADER_SIZE
        return (
            self.headers[slot * HEADER_SIZE : end * HEADER_SIZE] == headers
            and self._lengths[slot : slot + full] == [self.size] * full
            and self.names[slot * NAME_SIZE : end * NAME_SIZE] == name * (end - slot)
        )
