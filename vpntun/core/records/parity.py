"""Parity of groups of records, which restores one lost record of a group.

    sending      after each group of records that were sent in one datagram each, a PARITY record follows: the exclusive
                 or of their plaintexts and of their lengths. A group's counters are consecutive: if another record took
                 one of them, or a record is too long for its parity to fit, a new group begins
    receiving    once a PARITY has come, the last 64 single records are kept. A later PARITY whose group lacks exactly
                 one record restores it, as genuine as the PARITY, which was sealed

No record waits for its parity. A restored record is late by no more than its group.
"""

from __future__ import annotations

from vpntun.crypto.replay import ReplayWindow
from vpntun.types import NEVER
from vpntun.wire.record import Parity

KEPT = 64
"""Records that are kept; no group is longer."""
LARGEST_KEPT = 9216
"""Bytes that the datagram in a jumbo frame holds."""
KEPT_FOR = 2.0
"""Seconds after the last PARITY for which records are kept."""


class ParityMaker:
    """Maker of the parities of one session's records."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a new group."""
        self._first = self._next = 0
        self._count = self._lengths = self._longest = self._sum = 0

    def add(self, counter: int, plaintext: memoryview, group: int) -> bytes:
        """Add a record that was sealed; return the PARITY record to send after it, empty if none is due.

        `group`: number of records that share a parity, at most 64.
        """
        if counter != self._next or not self._count:
            self.begin()
            self._first = counter
        self._next = counter + 1
        self._count += 1
        self._lengths ^= len(plaintext)
        self._longest = max(self._longest, len(plaintext))
        self._sum ^= int.from_bytes(plaintext, "little")
        if self._count < group:
            return b""
        parity = Parity(self._first, self._count, self._lengths, self._sum.to_bytes(self._longest, "little"))
        self.begin()
        return parity.pack()


class Restorer:
    """Keeper of records that came lately in one session, to restore others from. `until`: when to stop keeping them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Forget the records kept, for a new session."""
        self.until = -NEVER
        self._kept: list[tuple[int, bytes]] = []

    def keep(self, counter: int, plaintext: memoryview) -> None:
        """Keep a record with packets, which came in one datagram."""
        if len(plaintext) <= LARGEST_KEPT:
            self._kept[counter % KEPT] = counter, bytes(plaintext)

    def restore(self, parity: Parity, replay: ReplayWindow, now: float) -> tuple[int, bytes] | None:
        """Return the counter and plaintext of the one record that a group lacks; None if it lacks none, or several."""
        if not self._kept:
            self._kept = [(-1, b"")] * KEPT
        self.until = now + KEPT_FOR
        missing = -1
        lengths, total = parity.lengths, int.from_bytes(parity.sum, "little")
        for counter in range(parity.first, parity.first + parity.count):
            kept_counter, plaintext = self._kept[counter % KEPT]
            if kept_counter == counter and len(plaintext) > len(parity.sum):
                return None
            if kept_counter == counter:
                lengths ^= len(plaintext)
                total ^= int.from_bytes(plaintext, "little")
            elif missing >= 0 or replay.seen(counter):
                return None
            else:
                missing = counter
        if missing < 0 or not 0 < lengths <= len(parity.sum) or total.bit_length() > 8 * lengths:
            return None
        return missing, total.to_bytes(lengths, "little")
