"""Reassembly of bursts whose pieces did not come in order: by (source, session, counter), in a bounded number of slots.

    1. the place is legal (wire/burst.py), and the datagram is a piece, not a whole message
    2. the session's replay window has not seen the counter. It is not marked yet, since nothing is authenticated
    3. the record has a slot or gets one: there are 8 for the peer's endpoint and 2 for all other sources, 64 KiB each.
       A slot whose record is unfinished for 1 s is free. If no slot is free, the record that got no piece for longest
       is given up. The new record is always admitted: after a queue has overflowed, none of those in the slots may
       ever be finished, and they must not keep out the ones that follow
    4. the piece fits there (slot.py)
    5. once the record is whole, the caller gets the sealed message to open, and the slot is free

A forged piece spoils the record it claims to belong to, and may take the slot of the one that waited for longest, but
only among the records of its own kind of source. What a piece announces allocates nothing: a slot is made, with its 64
KiB, when none is free and there are fewer than the most, and the free slots go at the end of a session.

Only BadPacket leaves `take`: what `place_of` and `Slot.put` raise, "replayed" or "bad size".
Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from operator import attrgetter
from typing import Generic, NamedTuple

from vpntun.core.records.slot import AnySession, Slot
from vpntun.errors import BadPacket
from vpntun.wire.burst import place_of
from vpntun.wire.message import DATA, DATA_HEADER, HEADER_SIZE, SMALLEST

ENDPOINT_SLOTS = 8
OTHER_SLOTS = 2
AGE = 1.0
MOST_GIVEN_UP = 1024

_turn_of = attrgetter("turn")


class Joined(NamedTuple):
    """A record that is whole, and not authenticated yet.

    message          sealed, its reserved bytes zero; valid until the next piece is taken
    pieces           how many of them came, all from one source
    datagram_size    bytes of each but the last
    is_restored      the parity replaced a piece that did not come
    """

    message: memoryview
    pieces: int
    datagram_size: int
    is_restored: bool


class Reassembly(Generic[AnySession]):
    """The slots of one peer."""

    def __init__(self) -> None:
        self._turn = 0
        self._given_up: deque[tuple[AnySession, int, int]] = deque(maxlen=MOST_GIVEN_UP)
        self._endpoint_slots: list[Slot[AnySession]] = []
        self._other_slots: list[Slot[AnySession]] = []

    def take(
        self, datagram: memoryview, session: AnySession, source: Hashable, now: float, *, from_endpoint: bool
    ) -> Joined | None:
        """Take in one piece of a burst of this session, or its parity. None as long as one is missing.

        A parity that comes behind its record was not needed.
        """
        index, count = place_of(datagram)
        if count == 1:
            raise BadPacket("bad fragment")
        _, receiver, counter = DATA_HEADER.unpack_from(datagram)
        slots, most = (self._endpoint_slots, ENDPOINT_SLOTS) if from_endpoint else (self._other_slots, OTHER_SLOTS)
        slot = _find(slots, session, counter, source)
        if slot is None:
            if session.replay.seen(counter):
                if index == count and from_endpoint:
                    return None
                raise BadPacket("replayed")
            slot = self._room(slots, most, now)
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
        return Joined(message, slot.pieces, slot.datagram_size, is_restored=slot.pieces < count)

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
        """Take out the records given up of this session."""
        drained = [each for each in self._given_up if each[0] is session]
        if drained:
            others = [each for each in self._given_up if each[0] is not session]
            self._given_up.clear()
            self._given_up.extend(others)
        return drained

    def _room(self, slots: list[Slot[AnySession]], most: int, now: float) -> Slot[AnySession]:
        """A slot for another record; if none is free, that of the record that got no piece for longest."""
        for slot in slots:
            if slot.session is None:
                return slot
            if now - slot.began >= AGE:
                self._abandon(slot)
                return slot
        if len(slots) < most:
            slots.append(Slot())
            return slots[-1]
        oldest = min(slots, key=_turn_of)
        self._abandon(oldest)
        return oldest

    def _abandon(self, slot: Slot[AnySession]) -> None:
        if slot.session is not None and slot.pieces:  # else its parity alone has come: before the record, perhaps
            self._given_up.append((slot.session, slot.counter, slot.pieces))
        slot.session = None


def _find(
    slots: list[Slot[AnySession]], session: AnySession, counter: int, source: Hashable
) -> Slot[AnySession] | None:
    for slot in slots:
        if slot.counter == counter and slot.session is session and slot.source == source:
            return slot
    return None
