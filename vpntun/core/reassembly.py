"""The careful way for the pieces of a burst: joined by (source, session, counter) in a bounded number of slots.

    1. its place is legal (wire/burst.py), and it is a piece
    2. the session's replay window has not seen its counter: asked, not marked, since nothing is authenticated yet
    3. its slot, or a free one: 8 for the peer's endpoint, 2 for all other sources, 64 KiB each. A slot unfinished for
       1 s is free. None is: the record farthest from the session's highest authenticated counter goes, be it the new;
       within 64 counters all are equally far, and the one that got no piece for longest goes, so that on a path that
       loses much the records that will never be finished do not keep out those that come
    4. it fits there: every piece of one size but the last, which is no longer, and all together no longer than a
       message. The first of two that claim one place stays
    5. complete: the whole sealed message, for the caller to open; its slot is free

A forged piece spoils the record it claims to belong to, where its source can be forged at all, and no other. Nothing is
allocated by what a piece announces: a slot is made, with its 64 KiB, when none is free, and those that are free at the
end of a session go.

Only BadPacket leaves `take`: what `place_of` raises, "replayed", "no room", "repeated fragment" or "bad fragment".
Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from vpntun.errors import BadPacket
from vpntun.wire.burst import place_of
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, LARGEST, SMALLEST

ENDPOINT_SLOTS = 8
OTHER_SLOTS = 2
AGE = 1.0
MOST_GIVEN_UP = 1024
NEAR = 6
"""Distances are compared in units of 2^6 counters."""


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


class Reassembly(Generic[AnySession]):
    """The slots of one peer."""

    def __init__(self) -> None:
        self._turn = 0
        self._given_up: deque[tuple[AnySession, int, int]] = deque(maxlen=MOST_GIVEN_UP)
        self._endpoint_slots: list[_Slot[AnySession]] = []
        self._other_slots: list[_Slot[AnySession]] = []

    def take(
        self, datagram: memoryview, session: AnySession, source: Hashable, now: float, *, from_endpoint: bool
    ) -> tuple[memoryview, int] | None:
        """Take in one piece of a burst of this session.

        Returns the whole message, its reserved bytes zero, which is valid until the next call, and in how many
        datagrams it came, all from `source`; None as long as one is missing.
        """
        index, count = place_of(datagram)
        if count == 1:
            raise BadPacket("bad fragment")
        _, receiver, counter = DATA_HEADER.unpack_from(datagram)
        slots, most = (self._endpoint_slots, ENDPOINT_SLOTS) if from_endpoint else (self._other_slots, OTHER_SLOTS)
        slot = _find(slots, session, counter, source)
        if slot is None:
            if session.replay.seen(counter):
                raise BadPacket("replayed")
            slot = self._room(slots, most, session, counter, now)
            slot.begin(session, counter, source, count, now)
        self._turn = slot.turn = self._turn + 1
        size = slot.put(index, count, datagram[HEADER_SIZE:])
        if not size:
            return None
        slot.session = None
        if size < SMALLEST:
            raise BadPacket("bad size")
        message = slot.buffer[:size]
        DATA_HEADER.pack_into(message, 0, DATA, receiver, counter)
        return message, count

    def waiting(self, session: AnySession, highest: int) -> int:
        """Datagrams held of this session's records with counters up to `highest` (see Meter.report)."""
        return sum(
            slot.pieces
            for slot in (*self._endpoint_slots, *self._other_slots)
            if slot.session is session and slot.counter <= highest
        )

    def given_up(self, session: AnySession, now: float) -> list[tuple[int, int]]:
        """The records of this session given up since last asked, those that are too old now among them.

        Counter and how many datagrams of it had come, for Meter.gave_up. At most 1,024 are kept.
        """
        for slot in (*self._endpoint_slots, *self._other_slots):
            if slot.session is session and now - slot.began >= AGE:
                self._abandon(slot)
        return [(counter, pieces) for _, counter, pieces in self._drain(session)]

    def forget(self, session: AnySession) -> None:
        """The session is gone."""
        for slot in (*self._endpoint_slots, *self._other_slots):
            if slot.session is session:
                self._abandon(slot)
        for slots in (self._endpoint_slots, self._other_slots):
            slots[:] = [slot for slot in slots if slot.session is not None]
        self._drain(session)

    def _drain(self, session: AnySession) -> list[tuple[AnySession, int, int]]:
        drained = [each for each in self._given_up if each[0] is session]
        if drained:
            others = [each for each in self._given_up if each[0] is not session]
            self._given_up.clear()
            self._given_up.extend(others)
        return drained

    def _room(
        self, slots: list[_Slot[AnySession]], most: int, session: AnySession, counter: int, now: float
    ) -> _Slot[AnySession]:
        farthest: _Slot[AnySession] | None = None
        distance = -1
        for slot in slots:
            if slot.session is None:
                return slot
            if now - slot.began >= AGE:
                self._abandon(slot)
                return slot
            far = abs(slot.counter - slot.session.highest_received) >> NEAR
            if farthest is None or far > distance or (far == distance and slot.turn < farthest.turn):
                farthest, distance = slot, far
        if len(slots) < most:
            slots.append(_Slot())
            return slots[-1]
        if farthest is None or abs(counter - session.highest_received) >> NEAR > distance:
            raise BadPacket("no room")
        self._abandon(farthest)
        return farthest

    def _abandon(self, slot: _Slot[AnySession]) -> None:
        if slot.session is not None:
            self._given_up.append((slot.session, slot.counter, slot.pieces))
        slot.session = None


def _find(
    slots: list[_Slot[AnySession]], session: AnySession, counter: int, source: Hashable
) -> _Slot[AnySession] | None:
    for slot in slots:
        if slot.counter == counter and slot.session is session and slot.source == source:
            return slot
    return None


class _Slot(Generic[AnySession]):
    """One record's pieces. It is free when it has no session.

    The last piece's place follows from the others' size, so it is kept aside until one of those has come.
    """

    __slots__ = (
        "_count",
        "_last",
        "_present",
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
        self.turn = 0
        self.buffer = memoryview(bytearray(LARGEST))
        self._count = 0
        self._present = 0
        self._step = 0
        self._last = b""

    def begin(self, session: AnySession, counter: int, source: Hashable, count: int, now: float) -> None:
        """Serve another record, of `count` pieces."""
        self.session = session
        self.counter = counter
        self.source = source
        self.began = now
        self.pieces = 0
        self._count = count
        self._present = 0
        self._step = 0
        self._last = b""

    def put(self, index: int, count: int, piece: memoryview) -> int:
        """Take in a piece; the length of the message that is now complete, or 0."""
        if count != self._count:
            raise BadPacket("bad fragment")
        bit = 1 << index
        if self._present & bit:
            raise BadPacket("repeated fragment")
        size = len(piece)
        step = self._step
        last = count - 1
        if index == last:
            if step and size > step:
                raise BadPacket("bad fragment")
            if HEADER_SIZE + last * (step or 1) + size > LARGEST:
                raise BadPacket("bad fragment")
            self._last = bytes(piece)
        else:
            if step:
                if size != step:
                    raise BadPacket("bad fragment")
            elif size < len(self._last) or HEADER_SIZE + last * size + (len(self._last) or 1) > LARGEST:
                raise BadPacket("bad fragment")
            else:
                self._step = size
            begin = HEADER_SIZE + index * size
            self.buffer[begin : begin + size] = piece
        self._present |= bit
        self.pieces += 1
        if self.pieces < count:
            return 0
        begin = HEADER_SIZE + last * self._step
        end = begin + len(self._last)
        self.buffer[begin:end] = self._last
        self._last = b""
        return end
