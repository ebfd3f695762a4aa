"""Reassembly of bursts whose pieces came out of order, in a bounded number of slots.

Records are told apart by source, session and counter. For each piece:

    1. check that its place is valid (wire/burst.py), and that it is a piece, not a whole message
    2. check that the session's replay window has not seen the counter. It is not marked yet, since nothing is
       authenticated
    3. find the record's slot, or assign one: there are 8 for the peer's endpoint and 2 for all other sources, 64 KiB
       each. A slot whose record has been unfinished for 1 s is free. If no slot is free, the record that has had no
       piece for longest is given up. A new record is always admitted: after a queue has overflowed, the records in the
       slots may never be finished, and they must not keep out those that follow
    4. check that the piece fits there (slot.py)
    5. once the record is complete, return the sealed message to open, and free the slot

A forged piece spoils the record it claims to belong to, and may take the slot of the record that has waited longest,
but only among the records of its own kind of source. The sizes in a piece's header allocate nothing: a slot is made,
with its 64 KiB, when none is free and there are fewer than the maximum. Free slots are released at the end of a
session.

`take` raises only BadPacket: those of `place_of` and `Slot.put`, "replayed", or "bad size".
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

_last_use = attrgetter("last_use")


class Joined(NamedTuple):
    """A record that is complete, and not authenticated yet.

    message          the sealed message, its reserved bytes zero; valid until the next piece is taken
    pieces           number of pieces that came, all from one source
    datagram_size    bytes of each datagram but the last
    is_restored      whether the parity replaced a piece that did not come
    ecn              the ECN field of the pieces' IP headers: CE if any has it
    """

    message: memoryview
    pieces: int
    datagram_size: int
    is_restored: bool
    ecn: int


class Reassembly(Generic[AnySession]):
    """Slots for one peer's bursts."""

    def __init__(self) -> None:
        self._uses = 0
        self._given_up: deque[tuple[AnySession, int, int]] = deque(maxlen=MOST_GIVEN_UP)
        self._endpoint_slots: list[Slot[AnySession]] = []
        self._other_slots: list[Slot[AnySession]] = []

    def take(
        self,
        datagram: memoryview,
        session: AnySession,
        source: Hashable,
        now: float,
        *,
        from_endpoint: bool,
        ecn: int = 0,
    ) -> Joined | None:
        """Take in one piece of a burst of this session, or its parity. Return None until the record is complete.

        `ecn`: the ECN field of its IP header.
        A parity that comes after its record was not needed.
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
            slot = self._free_slot(slots, most, now)
            slot.begin(session, counter, source, count, now)
        self._uses = slot.last_use = self._uses + 1
        size = slot.put(index, count, datagram[HEADER_SIZE:])
        slot.ecn = max(slot.ecn, ecn)
        if not size:
            return None
        slot.session = None
        if size < SMALLEST:
            raise BadPacket("bad size")
        message = slot.buffer[:size]
        DATA_HEADER.pack_into(message, 0, DATA, receiver, counter)
        return Joined(message, slot.pieces, slot.datagram_size, is_restored=slot.pieces < count, ecn=slot.ecn)

    def waiting(self, session: AnySession, highest: int) -> int:
        """Return the number of datagrams held for this session's records up to counter `highest`.

        `ReceiveStats.report` needs it.
        """
        return sum(
            slot.pieces
            for slot in (*self._endpoint_slots, *self._other_slots)
            if slot.session is session and slot.counter <= highest
        )

    def given_up(self, session: AnySession, now: float) -> list[tuple[int, int]]:
        """Give up this session's records that are too old; return all that were given up since the last call.

        Each is a counter and the number of its datagrams that had come, for `ReceiveStats.record_given_up`. At most
        1,024 are kept.
        """
        for slot in (*self._endpoint_slots, *self._other_slots):
            if slot.session is session and now - slot.began >= AGE:
                self._abandon(slot)
        return [(counter, pieces) for _, counter, pieces in self._drain(session)]

    def forget(self, session: AnySession) -> None:
        """Forget a session that has ended."""
        for slot in (*self._endpoint_slots, *self._other_slots):
            if slot.session is session:
                self._abandon(slot)
        for slots in (self._endpoint_slots, self._other_slots):
            slots[:] = [slot for slot in slots if slot.session is not None]
        self._drain(session)

    def _drain(self, session: AnySession) -> list[tuple[AnySession, int, int]]:
        """Remove and return the records of this session that were given up."""
        drained = [entry for entry in self._given_up if entry[0] is session]
        if drained:
            others = [entry for entry in self._given_up if entry[0] is not session]
            self._given_up.clear()
            self._given_up.extend(others)
        return drained

    def _free_slot(self, slots: list[Slot[AnySession]], most: int, now: float) -> Slot[AnySession]:
        """Return a slot for another record; if none is free, give up the record that has had no piece for longest."""
        for slot in slots:
            if slot.session is None:
                return slot
            if now - slot.began >= AGE:
                self._abandon(slot)
                return slot
        if len(slots) < most:
            slots.append(Slot())
            return slots[-1]
        oldest = min(slots, key=_last_use)
        self._abandon(oldest)
        return oldest

    def _abandon(self, slot: Slot[AnySession]) -> None:
        if slot.session is not None and slot.pieces:  # else only its parity has come, perhaps ahead of the record
            self._given_up.append((slot.session, slot.counter, slot.pieces))
        slot.session = None


def _find(
    slots: list[Slot[AnySession]], session: AnySession, counter: int, source: Hashable
) -> Slot[AnySession] | None:
    for slot in slots:
        if slot.counter == counter and slot.session is session and slot.source == source:
            return slot
    return None
