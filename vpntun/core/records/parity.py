"""Parities: what restores one lost record of a group, where datagrams are lost at random.

    sending      every so many records that went in one datagram each, a PARITY record follows: the exclusive or of
                 their plaintexts and of their lengths. A group's counters are consecutive: where one is another's, or a
                 record is too long for its parity to fit, the group begins anew
    receiving    once a PARITY has come, the last 64 single records are kept. The next one whose group lacks exactly one
                 gives that one: as genuine as the PARITY, which was sealed

No record waits for its parity. A restored record comes late, by no more than its group.
"""

from __future__ import annotations

from vpntun.crypto.replay import ReplayWindow
from vpntun.types import NEVER
from vpntun.wire.record import Parity

KEPT = 64
"""Records; no group is longer."""
LARGEST_KEPT = 9216
"""Bytes: what a jumbo frame's datagram holds."""
KEPT_FOR = 2.0
"""Seconds after the last PARITY."""


class ParityMaker:
    """Makes the parities of one session's records."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin a new group."""
        self._first = self._next = 0
        self._count = self._lengths = self._longest = self._sum = 0

    def add(self, counter: int, plaintext: memoryview, group: int) -> bytes:
        """Take in a record that was sealed; return the PARITY record to send behind it, empty where none is due.

        `group`: how many records share a parity, at most 64.
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
    """Keeps what one session has received lately, and restores from it. `until`: how long to `keep` records for."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Another session: its counters begin anew."""
        self.until = -NEVER
        self._kept: list[tuple[int, bytes]] = []

    def keep(self, counter: int, plaintext: memoryview) -> None:
        """A record with packets was opened that came in one datagram."""
        if len(plaintext) <= LARGEST_KEPT:
            self._kept[counter % KEPT] = counter, bytes(plaintext)

    def restore(self, parity: Parity, replay: ReplayWindow, now: float) -> tuple[int, bytes] | None:
        """The one record that a group lacks: its counter and plaintext; None where it lacks none, or several."""
        if not self._kept:
            self._kept = [(-1, b"")] * KEPT
        self.until = now + KEPT_FOR
        lost = -1
        lengths, total = parity.lengths, int.from_bytes(parity.sum, "little")
        for counter in range(parity.first, parity.first + parity.count):
            kept, plaintext = self._kept[counter % KEPT]
            if kept == counter and len(plaintext) > len(parity.sum):
                return None
            if kept == counter:
                lengths ^= len(plaintext)
                total ^= int.from_bytes(plaintext, "little")
            elif lost >= 0 or replay.seen(counter):
                return None
            else:
                lost = counter
        if lost < 0 or not 0 < lengths <= len(parity.sum) or total.bit_length() > 8 * lengths:
            return None
        return lost, total.to_bytes(lengths, "little")
