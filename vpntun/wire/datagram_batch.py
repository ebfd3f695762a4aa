"""A batch of UDP datagrams read by one call, with bursts joined in place.

It is used where the kernel does not coalesce datagrams (no UDP_GRO on the path). Each datagram has a slot. Its first 16
bytes go to the header block, and the rest goes directly behind the previous slot's rest. So the pieces of a burst that
arrive in order, starting at any slot, are contiguous: writing the header before them makes the message, without
copying. If a datagram is longer than a slot, its remaining bytes go to the slot's tail, which has room for the longest
datagram. So no sender's datagram is cut short because another sender's are short.

    slot k      headers[16 k : 16 k + 16]   pieces[16 + k step : 16 + k step + step]   tails[k tail : k tail + tail]
                origins[96 k : 96 k + 96]

    1. `room()` returns the first slot of the next read
    2. the carrier reads, and reports each datagram's length: `received(lengths)`
    3. `arrivals()` yields whole bursts, whole messages, and the pieces of bursts that are not in order, as they
       arrived. A burst of which only the first pieces have arrived waits in place for the rest

Untrusted bytes; raises nothing. When a burst is yielded whole, all its headers belong to one message and are in order,
all its datagrams but the last have the full size, and they have the same origin and at most 65,535 bytes in all. Only
opening the message proves it genuine.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from typing import TypeVar

from vpntun.wire.burst import MOST_DATAGRAMS, headers_of
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST

SLOTS = 256
ORIGIN_SIZE = 96
"""An origin tells where a datagram came from: a sockaddr of at most 28 bytes, 4 unused ones, and 64 of ancillary data,
which has the address that it was sent to, and its TOS byte or traffic class."""

Source = TypeVar("Source")

_unpack = DATA_HEADER.unpack_from


class DatagramBatch:
    """Slots for bursts in datagrams of `size` bytes; the carrier reads into `headers`, `pieces`, `tails` and
    `origins`.

    `tail` is the size of a slot's tail in bytes. Tails are mapped, not allocated: a page becomes resident when a long
    datagram first uses it.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.step = size - HEADER_SIZE
        self.tail = LARGEST - size
        self.headers = bytearray(SLOTS * HEADER_SIZE)
        self.pieces = bytearray(HEADER_SIZE + SLOTS * self.step)
        self.tails = mmap.mmap(-1, SLOTS * self.tail)
        self.origins = bytearray(SLOTS * ORIGIN_SIZE)
        self._view = memoryview(self.pieces)
        self._long = memoryview(bytearray(LARGEST))
        self._lengths: list[int] = []
        self._begin = 0
        self._is_yielding = False

    def room(self) -> int:
        """Return the slot at which the next read begins, after moving waiting pieces to the front if necessary.

        The waiting pieces belong to one burst and all have the full size, so no tails move. If the caller abandoned
        `arrivals` half-way, the datagrams not yet yielded are dropped.
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
            self.origins[: kept * ORIGIN_SIZE] = self.origins[begin * ORIGIN_SIZE : end * ORIGIN_SIZE]
            self._view[HEADER_SIZE : HEADER_SIZE + kept * self.step] = self._view[
                HEADER_SIZE + begin * self.step : HEADER_SIZE + end * self.step
            ]
        return len(self._lengths)

    def received(self, lengths: list[int]) -> None:
        """Note the lengths of the datagrams just read into the slots from `room()` on."""
        self._lengths += lengths

    def arrivals(
        self, read_origin: Callable[[bytes], tuple[Source, int]]
    ) -> Iterator[tuple[memoryview, int, int, Source, int]]:
        """Yield (message or piece with its header, 0, number of datagrams that carried it, source, ECN), in order.

        Each is valid until the next is yielded. `read_origin` converts an origin, of ORIGIN_SIZE bytes, to a source and
        an ECN field.
        """
        last_origin = b""
        lengths, view, step, headers, origins = self._lengths, self._view, self.step, self.headers, self.origins
        self._is_yielding = True
        while self._begin < len(lengths):
            slot = self._begin
            length = lengths[slot]
            origin = bytes(origins[slot * ORIGIN_SIZE : (slot + 1) * ORIGIN_SIZE])
            if origin != last_origin:
                last_origin, (source, ecn) = origin, read_origin(origin)
            begin = slot * step  # of the message, once its header has been written before its piece
            if length >= HEADER_SIZE:
                word, receiver, counter = _unpack(headers, slot * HEADER_SIZE)
                if word == DATA and length <= self.size:
                    self._begin = slot + 1
                    view[begin : begin + HEADER_SIZE] = headers[slot * HEADER_SIZE : (slot + 1) * HEADER_SIZE]
                    yield view[begin : begin + length], 0, 1, source, ecn
                    continue
                count = self._count(slot, word, receiver, counter, origin)
                if count < 0:
                    break
                if count:
                    self._begin = slot + count
                    DATA_HEADER.pack_into(view, begin, DATA, receiver, counter)
                    end = begin + (count - 1) * step + lengths[slot + count - 1]
                    yield view[begin:end], 0, count, source, ecn
                    continue
            self._begin = slot + 1
            if length > self.size:
                yield self._with_tail(slot, length), 0, 1, source, ecn
                continue
            view[begin : begin + HEADER_SIZE] = headers[slot * HEADER_SIZE : (slot + 1) * HEADER_SIZE]
            yield view[begin : begin + length], 0, 1, source, ecn
        self._is_yielding = False

    def _with_tail(self, slot: int, length: int) -> memoryview:
        """Put together a datagram that is longer than its slot."""
        size, piece, tail = self.size, HEADER_SIZE + slot * self.step, slot * self.tail
        long = self._long
        long[:HEADER_SIZE] = self.headers[slot * HEADER_SIZE : (slot + 1) * HEADER_SIZE]
        long[HEADER_SIZE:size] = self._view[piece : piece + self.step]
        long[size:length] = self.tails[tail : tail + length - size]
        return long[:length]

    def _count(self, slot: int, word: int, receiver: int, counter: int, origin: bytes) -> int:
        """Return how many datagrams from `slot` on form one whole burst.

        0: no burst begins there in order. -1: one may, once the rest of it has arrived.
        """
        rest = word >> 16
        if word != DATA | rest << 16 or not 0 < rest < MOST_DATAGRAMS or HEADER_SIZE + rest * self.step >= LARGEST:
            return 0
        there = min(rest + 1, len(self._lengths) - slot)
        end, full = slot + there, min(there, rest)
        headers = headers_of(DATA, receiver, counter, rest + 1)[: there * HEADER_SIZE]
        if (
            self.headers[slot * HEADER_SIZE : end * HEADER_SIZE] != headers
            or self._lengths[slot : slot + full] != [self.size] * full
            or self.origins[slot * ORIGIN_SIZE : end * ORIGIN_SIZE] != origin * there
        ):
            return 0
        if there <= rest:
            return -1
        fits = HEADER_SIZE < self._lengths[end - 1] <= min(self.size, LARGEST - rest * self.step)
        return there if fits else 0
