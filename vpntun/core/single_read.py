"""Hint whether to read a descriptor only once in a turn, or until it is empty.

Reading an empty descriptor costs a system call and an exception, which lengthen the round trip of a single packet.

    one item a turn, in several consecutive turns    read once a turn from then on
    readable again in the very next turn             there was more: read until it is empty, as at first
"""

from __future__ import annotations

HABIT = 4


class SingleReadHint:
    """Reading habit of one descriptor. `turn` is the loop's number of turns."""

    __slots__ = ("_in_a_row", "_turn")

    def __init__(self) -> None:
        self._in_a_row = 0
        self._turn = 0

    def expected(self, turn: int) -> bool:
        """Return whether to read a readable descriptor only once in this turn."""
        if turn - self._turn <= 1:
            self._in_a_row = 0
        self._turn = turn
        return self._in_a_row >= HABIT

    def drained(self, brought: int) -> None:
        """Note that the descriptor was read until it was empty, and how many items it gave."""
        self._in_a_row = self._in_a_row + 1 if brought == 1 else 0
