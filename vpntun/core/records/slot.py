"""Slot that collects the pieces of one record in a buffer of 64 KiB.

All pieces have the same size, except that the last may be shorter. The last piece's position follows from the size of
the others, so it is kept aside until one of those has come. With the parity of a protected burst, one piece fewer is
enough, and all have the full size.

If two pieces claim the same place, the first stays and the second is refused: BadPacket("repeated fragment"). A piece
that contradicts the pieces before it, or makes the record longer than a message, raises BadPacket("bad fragment").
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from vpntun.errors import BadPacket
from vpntun.wire.burst import parity_of
from vpntun.wire.message import HEADER_SIZE, LARGEST


class Window(Protocol):
    """Replay window: the counters that have been accepted."""

    def seen(self, counter: int) -> bool:
        """Whether the counter would be refused."""


class Receiving(Protocol):
    """The part of a session that reassembly needs. Sessions are compared by identity."""

    @property
    def replay(self) -> Window:
        """The session's replay window."""


AnySession = TypeVar("AnySession", bound=Receiving)


class Slot(Generic[AnySession]):
    """Pieces of one record. The slot is free when it has no session."""

    __slots__ = (
        "_count",
        "_last",
        "_parity",
        "_present",
        "_step",
        "began",
        "buffer",
        "counter",
        "ecn",
        "last_use",
        "pieces",
        "session",
        "source",
    )

    def __init__(self) -> None:
        self.session: AnySession | None = None
        self.counter = -1
        self.source: Hashable = None
        self.began = 0.0
        self.pieces = 0
        self.last_use = 0
        self.ecn = 0
        """The greatest ECN field of the pieces. CE is the greatest, and then ECT(0), which changes nothing."""
        self.buffer = memoryview(bytearray(LARGEST))
        self._begin(0)

    def begin(self, session: AnySession, counter: int, source: Hashable, count: int, now: float) -> None:
        """Begin to collect another record, of `count` pieces."""
        self.session = session
        self.counter = counter
        self.source = source
        self.began = now
        self.pieces = self.ecn = 0
        self._begin(count)

    @property
    def datagram_size(self) -> int:
        """Bytes of each datagram of a complete burst, except the last, which may be shorter."""
        return HEADER_SIZE + self._step

    def _begin(self, count: int) -> None:
        self._count = count
        self._present = 0
        self._step = 0
        self._last = self._parity = b""

    def put(self, index: int, count: int, piece: memoryview) -> int:
        """Take in a piece or the parity; return the length of the message once it is complete, 0 before.

        Raises BadPacket.
        """
        if count != self._count:
            raise BadPacket("bad fragment")
        bit = 1 << index
        if self._present & bit:
            raise BadPacket("repeated fragment")
        self._put(index, piece)
        self._present |= bit
        self.pieces += index < count
        if self._present.bit_count() < count:
            return 0
        return self._restore() if self._parity else self._put_last()

    def _put(self, index: int, piece: memoryview) -> None:
        size, last = len(piece), self._count - 1
        if index < last:
            self._note_step(size)
            begin = HEADER_SIZE + index * size
            self.buffer[begin : begin + size] = piece
        elif index == last:
            step = self._step
            if (step and size > step) or (self._parity and size < step):
                raise BadPacket("bad fragment")
            if HEADER_SIZE + last * (step or 1) + size > LARGEST:
                raise BadPacket("bad fragment")
            self._last = bytes(piece)
        else:
            if HEADER_SIZE + self._count * size > LARGEST or (self._last and size != len(self._last)):
                raise BadPacket("bad fragment")
            self._note_step(size)
            self._parity = bytes(piece)

    def _note_step(self, size: int) -> None:
        """Note that all pieces but the last have this size."""
        if not self._step:
            if size < len(self._last) or HEADER_SIZE + (self._count - 1) * size + (len(self._last) or 1) > LARGEST:
                raise BadPacket("bad fragment")
            self._step = size
        elif size != self._step:
            raise BadPacket("bad fragment")

    def _restore(self) -> int:
        """Restore the one missing piece from the parity; return the length of the message."""
        count, step, buffer = self._count, self._step, self.buffer
        if self._last:
            self._put_last()
        missing = (~self._present & (1 << count) - 1).bit_length() - 1
        begins = range(HEADER_SIZE, HEADER_SIZE + count * step, step)
        others = [buffer[begin : begin + step] for index, begin in enumerate(begins) if index != missing]
        buffer[begins[missing] : begins[missing] + step] = parity_of([*others, self._parity], step)
        return HEADER_SIZE + count * step

    def _put_last(self) -> int:
        """Put the last piece in its position; return the length of the message."""
        begin = HEADER_SIZE + (self._count - 1) * self._step
        end = begin + len(self._last)
        self.buffer[begin:end] = self._last
        self._last = b""
        return end
