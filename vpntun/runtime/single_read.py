"""Whether a descriptor that gave one thing is asked for another in the same turn.

Where nothing more waits, asking costs a system call and an exception, which a single packet's round trip feels.

    brought one thing a turn, several turns running      from then on it is asked once a turn
    readable in two turns running                        there was more: it is asked until it has nothing, as at first
"""

from __future__ import annotations

HABIT = 4


class SingleReadHint:
    """What is known of one descriptor. `turn` is the loop's count of its turns."""

    __slots__ = ("_in_a_row", "_turn")

    def __init__(self) -> None:
        self._in_a_row = 0
        self._turn = 0

    def expected(self, turn: int) -> bool:
        """The descriptor is readable. Whether to take one thing, and not to ask for another."""
        if turn - self._turn <= 1:
            self._in_a_row = 0
        self._turn = turn
        return self._in_a_row >= HABIT

    def drained(self, brought: int) -> None:
        """It was asked until it had nothing more, and has brought so many things."""
        self._in_a_row = self._in_a_row + 1 if brought == 1 else 0
