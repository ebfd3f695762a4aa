"""The replay window of RFC 6479: a ring of 128 words of 64 bits, one bit per counter.

A counter is accepted once, if it is below the limit and at most 8,128 behind the greatest accepted one. The ring
advances by whole words: one word is being filled, and 127 complete words lie behind it.

The caller must authenticate a packet before it marks the packet's counter: a forged counter would move the window.
"""

from __future__ import annotations

LIMIT = 2**64 - 2**13 - 1
"""The first counter that is never accepted (WireGuard's Reject-After-Messages)."""

_WORDS = 128
_LAST_WORD = _WORDS - 1
WINDOW = _LAST_WORD * 64


class ReplayWindow:
    """The set of counters that have been accepted; empty at first."""

    __slots__ = ("_greatest", "_ring")

    def __init__(self) -> None:
        self._greatest = -1
        self._ring = [0] * _WORDS

    def seen(self, counter: int) -> bool:
        """Whether `mark` would refuse this counter: it was marked before, is too old, or has reached the limit."""
        if counter > self._greatest:
            return counter >= LIMIT
        if self._greatest - counter > WINDOW:
            return True
        return bool(self._ring[counter >> 6 & _LAST_WORD] >> (counter & 63) & 1)

    def mark(self, counter: int) -> bool:
        """Mark the counter as seen; return whether it was acceptable. The same counter is refused from then on."""
        ring = self._ring
        greatest = self._greatest
        word = counter >> 6
        bit = 1 << (counter & 63)
        if counter > greatest:
            if counter >= LIMIT:
                return False
            newest = greatest >> 6
            if word != newest:
                for passed in range(max(newest, word - _WORDS) + 1, word + 1):
                    ring[passed & _LAST_WORD] = 0
            self._greatest = counter
        elif greatest - counter > WINDOW or ring[word & _LAST_WORD] & bit:
            return False
        ring[word & _LAST_WORD] |= bit
        return True
