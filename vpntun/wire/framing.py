"""TCP's framing: u16 big endian length | message. Law: a length that is out of bounds ends the stream for ever.

Flow of a read:
    1. `writable()` gives the room behind what is there; the carrier receives into it, then calls `filled(n)`.
    2. `frames()` yields each whole message in place. The rest of a partial frame waits for the next read.
    3. The next `writable()` moves that rest to the front; whole frames are never moved.
    4. When a connection has authenticated, `admit()` raises the largest legal frame: at once for the frames that are
       still to be parsed, and at the next `writable()` for the buffer, so that no frame in use moves.

The buffer's size follows from the largest legal frame alone, never from a length that a peer announced. The same
framing is simpletun's and Mullvad's udp-over-tcp.
"""

from __future__ import annotations

from collections.abc import Iterator

from vpntun.errors import BadPacket
from vpntun.wire.message import SMALLEST

PREFIX_SIZE = 2
LARGEST_BEFORE_AUTHENTICATION = 256


def prefix(length: int) -> bytes:
    """The two bytes that go before a message of `length` bytes (at most 65,535)."""
    return length.to_bytes(PREFIX_SIZE, "big")


class FrameReader:
    """Cuts a byte stream into messages of 32 to `largest` bytes, in one buffer of four times that size."""

    __slots__ = ("_broken", "_end", "_largest", "_start", "_view")

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._view = memoryview(bytearray(_room_for(largest)))
        self._start = 0
        self._end = 0
        self._broken = False

    def admit(self, largest: int) -> None:
        """From the next frame on, lengths up to `largest` are legal. Frames already yielded stay where they are."""
        self._largest = largest

    def writable(self) -> memoryview:
        """Where the next bytes of the stream go: never empty, provided `frames()` ran to its end since the last."""
        rest = self._end - self._start
        room = _room_for(self._largest)
        if room > len(self._view):
            larger = memoryview(bytearray(room))
            larger[:rest] = self._view[self._start : self._end]
            self._view = larger
        elif rest and self._start:
            self._view[:rest] = self._view[self._start : self._end]
        self._start = 0
        self._end = rest
        return self._view[rest:]

    def filled(self, count: int) -> None:
        """`count` bytes of what `writable()` gave now hold the stream's next bytes."""
        self._end += count

    def frames(self) -> Iterator[memoryview]:
        """Yield each whole message in order, without its length; each is valid until the next `writable()`.

        Untrusted bytes. Raises BadPacket("bad frame length") at a length below 32 or above the largest, and from
        then on at once: the stream can't be trusted again, whatever follows. What an iteration that was left early
        has not yielded, the next one yields.
        """
        while not self._broken:
            body = self._start + PREFIX_SIZE
            if body > self._end:
                return
            length = self._view[body - 2] << 8 | self._view[body - 1]
            if not SMALLEST <= length <= self._largest:
                self._broken = True
                break
            after = body + length
            if after > self._end:
                return
            self._start = after
            yield self._view[body:after]
        self._start = self._end  # nothing of a broken stream is kept, so that `writable()` keeps its promise
        raise BadPacket("bad frame length")


def _room_for(largest: int) -> int:
    """256 KiB for frames of 65,535 bytes: one receive takes many, and a partial one always has room for its rest."""
    return 4 * (largest + 1)
