"""The pieces of one record, in a buffer of 64 KiB, until it is whole.

    pieces of a burst              of one size, the last perhaps shorter: its place follows from the others' size, so it
                                   is kept aside until one of those has come
    pieces of a protected burst    all of one size; as soon as as many datagrams have come as there are pieces, it is
                                   whole: with the parity among them, that gives the piece that is missing

The first of two that claim one place stays. A piece that contradicts those before it is refused: BadPacket("repeated
fragment") or BadPacket("bad fragment"), which is also said of what together would be longer than a message.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from vpntun.errors import BadPacket
from vpntun.wire.burst import length_within, parity_of
from vpntun.wire.message import HEADER_SIZE, LARGEST


class Window(Protocol):
    """Which counters have been accepted."""

    def seen(self, counter: int) -> bool:
        """Whether the counter would be refused."""


class Receiving(Protocol):
    """What is needed of a session, which is compared by identity."""

    @property
    def highest_received(self) -> int:
        """The greatest counter that was authenticated, -1 for none."""

    @property
    def replay(self) -> Window:
        """Its window."""


AnySession = TypeVar("AnySession", bound=Receiving)


class Slot(Generic[AnySession]):
    """One record's pieces. It is free when it has no session."""

    __slots__ = (
        "_count",
        "_last",
        "_parity",
        "_present",
        "_protected",
        "_step",
        "began",
        "buffer",
        "counter",
        "pieces",
        "session",
        "source",
        "turn",
    )

    def __init__(self) -> None:
        self.session: AnySession | None = None
        self.counter = -1
        self.source: Hashable = None
        self.began = 0.0
        self.pieces = 0
        """Datagrams that have come; a parity is one."""
        self.turn = 0
        self.buffer = memoryview(bytearray(LARGEST))
        self._begin(0, protected=False)

    def begin(
        self, session: AnySession, counter: int, source: Hashable, count: int, now: float, *, protected: bool
    ) -> None:
        """Serve another record, of `count` pieces, and a parity where it is `protected`."""
        self.session = session
        self.counter = counter
        self.source = source
        self.began = now
        self.pieces = 0
        self._begin(count, protected=protected)

    @property
    def datagram_size(self) -> int:
        """Bytes of each datagram of a whole burst, but for a last one that may be shorter."""
        return HEADER_SIZE + self._step

    def _begin(self, count: int, *, protected: bool) -> None:
        self._count = count
        self._protected = protected
        self._present = 0
        self._step = 0
        self._last = self._parity = b""

    def put(self, index: int, count: int, piece: memoryview, *, protected: bool) -> int:
        """Take in a piece; the length of the message that is whole now, 0 while it is not.

        Of a protected burst it is 16 where the length of the filling cannot be. Raises BadPacket.
        """
        if count != self._count or protected is not self._protected:
            raise BadPacket("bad fragment")
        bit = 1 << index
        if self._present & bit:
            raise BadPacket("repeated fragment")
        if protected:
            self._put_full(index, piece)
        else:
            self._put(index, piece)
        self._present |= bit
        self.pieces += 1
        if self.pieces < count:
            return 0
        return self._restore() if protected else self._put_last()

    def _put(self, index: int, piece: memoryview) -> None:
        """A piece, the last of which may be shorter than the others."""
        size, step, last = len(piece), self._step, self._count - 1
        if index == last:
            if step and size > step:
                raise BadPacket("bad fragment")
            if HEADER_SIZE + last * (step or 1) + size > LARGEST:
                raise BadPacket("bad fragment")
            self._last = bytes(piece)
            return
        if step:
            if size != step:
                raise BadPacket("bad fragment")
        elif size < len(self._last) or HEADER_SIZE + last * size + (len(self._last) or 1) > LARGEST:
            raise BadPacket("bad fragment")
        else:
            self._step = size
        begin = HEADER_SIZE + index * size
        self.buffer[begin : begin + size] = piece

    def _put_last(self) -> int:
        begin = HEADER_SIZE + (self._count - 1) * self._step
        end = begin + len(self._last)
        self.buffer[begin:end] = self._last
        self._last = b""
        return end

    def _put_full(self, index: int, piece: memoryview) -> None:
        """A piece or the parity of a protected burst, which are all of one size."""
        size = len(piece)
        if self._step != size:
            if self._step or HEADER_SIZE + self._count * size > LARGEST:
                raise BadPacket("bad fragment")
            self._step = size
        if index == self._count:
            self._parity = bytes(piece)
        else:
            begin = HEADER_SIZE + index * size
            self.buffer[begin : begin + size] = piece

    def _restore(self) -> int:
        """As many datagrams as there are pieces have come: all pieces, or the parity in the place of one."""
        step, count = self._step, self._count
        if self._parity:
            missing = next(index for index in range(count) if not self._present >> index & 1)
            places = [HEADER_SIZE + index * step for index in range(count)]
            there = (self.buffer[at : at + step] for index, at in enumerate(places) if index != missing)
            restored = parity_of((self._parity, *there), step)
            self.buffer[places[missing] : places[missing] + step] = restored
        return length_within(self.buffer[: HEADER_SIZE + count * step], step) or HEADER_SIZE
