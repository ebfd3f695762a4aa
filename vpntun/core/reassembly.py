"""The careful way for the pieces of a burst: joined by (source, session, counter) in a bounded number of slots.

    1. its place is legal (wire/burst.py), and it is a piece
    2. the session's replay window has not seen its counter: asked, not marked, since nothing is authenticated yet
    3. its slot, or a free one: 8 for the peer's endpoint, 2 for all other sources, 64 KiB each. A slot unfinished for
       1 s is free. None is: the record farthest from the session's highest authenticated counter goes, be it the new;
       within 64 counters all are equally far, and the one that got no piece for longest goes, so that on a path that
       loses much the records that will never be finished do not keep out those that come
    4. it fits there (slot.py)
    5. whole, be it by its parity: the sealed message, for the caller to open; its slot is free

A parity that comes behind its record was not needed: it is dropped, and counted as seen.

A forged piece spoils the record it claims to belong to, where its source can be forged at all, and no other. Nothing is
allocated by what a piece announces: a slot is made, with its 64 KiB, when none is free, and those that are free at the
end of a session go.

Only BadPacket leaves `take`: what `place_of` and `Slot.put` raise, "replayed", "no room" or "bad size".
Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

from vpntun.core.slot import AnySession, Slot
from vpntun.errors import BadPacket
from vpntun.wire.burst import place_of
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, SMALLEST

ENDPOINT_SLOTS = 8
OTHER_SLOTS = 2
AGE = 1.0
MOST_REMEMBERED = 1024
NEAR = 6
"""Distances are compared in units of 2^6 counters."""


Ended = TypeVar("Ended", bound=tuple[Any, ...])


class Reassembly(Generic[AnySession]):
    """The slots of one peer."""

    def __init__(self) -> None:
        self._turn = 0
        self._given_up: deque[tuple[AnySession, int, int]] = deque(maxlen=MOST_REMEMBERED)
        self._late: deque[tuple[AnySession, int]] = deque(maxlen=MOST_REMEMBERED)
        self._endpoint_slots: list[Slot[AnySession]] = []
        self._other_slots: list[Slot[AnySession]] = []

    def take(
        self, datagram: memoryview, session: AnySession, source: Hashable, now: float, *, from_endpoint: bool
    ) -> tuple[memoryview, int, int] | None:
        """Take in one piece of a burst of this session.

        Returns the whole message, its reserved bytes zero, which is valid until the next call, in how many datagrams
        it came, all from `source`, and the size of those but the last; None as long as one is missing.
        """
        index, count = place_of(datagram)
        if count == 1:
            raise BadPacket("bad fragment")
        protected = bool(datagram[3])
        _, receiver, counter = DATA_HEADER.unpack_from(datagram)
        slots, most = (self._endpoint_slots, ENDPOINT_SLOTS) if from_endpoint else (self._other_slots, OTHER_SLOTS)
        slot = _find(slots, session, counter, source)
        if slot is None:
            if session.replay.seen(counter):
                if index == count and from_endpoint:
                    self._late.append((session, counter))
                    return None
                raise BadPacket("replayed")
            slot = self._room(slots, most, session, counter, now)
            slot.begin(session, counter, source, count, now, protected=protected)
        self._turn = slot.turn = self._turn + 1
        size = slot.put(index, count, datagram[HEADER_SIZE:], protected=protected)
        if not size:
            return None
        slot.session = None
        if size < SMALLEST:
            raise BadPacket("bad size")
        message = slot.buffer[:size]
        DATA_HEADER.pack_into(message, 0, DATA, receiver, counter)
        return message, slot.pieces, slot.datagram_size

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
        return [(counter, pieces) for _, counter, pieces in _drain(self._given_up, session)]

    def late(self, session: AnySession) -> list[int]:
        """The counters of this session whose parity has come, since last asked, and was not needed. 1,024 at most."""
        return [counter for _, counter in _drain(self._late, session)]

    def forget(self, session: AnySession) -> None:
        """The session is gone."""
        for slot in (*self._endpoint_slots, *self._other_slots):
            if slot.session is session:
                self._abandon(slot)
        for slots in (self._endpoint_slots, self._other_slots):
            slots[:] = [slot for slot in slots if slot.session is not None]
        _drain(self._given_up, session)
        _drain(self._late, session)

    def _room(
        self, slots: list[Slot[AnySession]], most: int, session: AnySession, counter: int, now: float
    ) -> Slot[AnySession]:
        farthest: Slot[AnySession] | None = None
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
            slots.append(Slot())
            return slots[-1]
        if farthest is None or abs(counter - session.highest_received) >> NEAR > distance:
            raise BadPacket("no room")
        self._abandon(farthest)
        return farthest

    def _abandon(self, slot: Slot[AnySession]) -> None:
        if slot.session is not None:
            self._given_up.append((slot.session, slot.counter, slot.pieces))
        slot.session = None


def _find(
    slots: list[Slot[AnySession]], session: AnySession, counter: int, source: Hashable
) -> Slot[AnySession] | None:
    for slot in slots:
        if slot.counter == counter and slot.session is session and slot.source == source:
            return slot
    return None


def _drain(remembered: deque[Ended], session: object) -> list[Ended]:
    """Take out what belongs to this session."""
    drained = [each for each in remembered if each[0] is session]
    if drained:
        others = [each for each in remembered if each[0] is not session]
        remembered.clear()
        remembered.extend(others)
    return drained
