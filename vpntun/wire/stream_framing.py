"""Framing of messages on a TCP stream: u16 big-endian length | message.

A length that is out of bounds ends the stream for good.

Flow of a read:
    1. `writable()` borrows the shared buffer and returns the room behind the unfinished frame of the last read; the
       carrier receives into it, then calls `filled(n)`.
    2. `frames()` yields each whole message in place, and leaves the beginning of an unfinished one.
    3. The next `writable()` moves that beginning to the front, if the reader still has the buffer. If another reader
       borrows the buffer first, the beginning is copied out, and copied back later. Whole frames are never moved.
    4. When a connection has been authenticated, `admit()` raises the largest legal frame size: at once for the frames
       still to be parsed, and at the next `writable()` for the room.

A frame may also be longer than the largest legal one, up to 9,216 bytes, if its first 16 bytes are the header of a data
message that fits a live session: a relay before a plain WireGuard, which connects again in mid-session, begins with
whatever comes, and that may be a full packet. The header is checked once, so the frame is accepted even if the session
ends before all of it has arrived. Such a header is visible on the path, but a stranger elsewhere cannot guess it.

Between two reads, a reader keeps the received bytes of at most one unfinished frame: before authentication 258 bytes,
or 9,218 behind a header that fits. So the 256 strangers that may be connected (carriers/accepted.py) can make this end
keep 66 kB, or 2.4 MB if all of them see packets on the path. A length announced by a peer never causes an allocation.
simpletun and Mullvad's udp-over-tcp use the same framing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from vpntun.errors import BadPacket
from vpntun.wire.message import DATA, HEADER_SIZE, LARGEST, SMALLEST, Buffer

PREFIX_SIZE = 2
LARGEST_BEFORE_AUTHENTICATION = 256
LARGEST_THAT_FITS = 9216
"""Largest frame before authentication whose header fits a live session: a packet of 9,000 bytes, sealed, is smaller."""


def prefix(length: int) -> bytes:
    """The two bytes that go before a message of `length` bytes (at most 65,535)."""
    return length.to_bytes(PREFIX_SIZE, "big")


write_prefix = struct.Struct(">H").pack_into
"""Write the prefix for a message of so many bytes into a buffer, at an offset: (buffer, offset, length)."""


def fits_none(header: Buffer) -> bool:
    """Return False: there is no session that the header of a data message could fit."""
    return False


class SharedBuffer:
    """The 256 KiB receive buffer that readers on one event loop share, lent to one reader at a time: `borrower`."""

    __slots__ = ("borrower", "view")

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_room_for(LARGEST)))
        self.borrower: FrameReader | None = None

    def lend(self, reader: FrameReader) -> None:
        """Lend the buffer to `reader`, which does not have it. Another borrower first saves its rest."""
        former, self.borrower = self.borrower, reader
        if former is not None:
            former.save_rest()

    def take_back(self, reader: FrameReader) -> None:
        """End the loan to `reader`, if there is one."""
        if self.borrower is reader:
            self.borrower = None


class FrameReader:
    """Reader that cuts a byte stream into messages of 32 to `largest` bytes.

    One receive takes at most about four times `largest`. `on_broken` is called at the first length that is illegal.
    `fits_session`: whether the 16 bytes of a data message's header fit a live session; then the frame may be longer.
    """

    __slots__ = (
        "_broken",
        "_buffer",
        "_end",
        "_fits_session",
        "_is_longer",
        "_largest",
        "_on_broken",
        "_room",
        "_saved",
        "_start",
        "_view",
    )

    def __init__(
        self,
        largest: int,
        buffer: SharedBuffer,
        on_broken: Callable[[], None] | None = None,
        fits_session: Callable[[Buffer], bool] = fits_none,
    ) -> None:
        self.admit(largest)
        self._on_broken = on_broken
        self._fits_session = fits_session
        self._buffer = buffer
        self._view = buffer.view
        self._saved = b""
        self._start = 0
        self._end = 0
        self._broken = False
        self._is_longer = False
        """Whether the header of the unfinished frame has been accepted. Its session may end before the frame does."""

    def admit(self, largest: int) -> None:
        """Allow lengths up to `largest` from the next frame on. Frames already yielded stay where they are."""
        self._largest = largest
        self._room = _room_for(largest)

    def writable(self) -> memoryview:
        """Borrow the buffer and return the room for the stream's next bytes; the room is never empty.

        `frames()` must have run to its end since the last call.
        """
        rest = self._end - self._start
        if self._buffer.borrower is not self:
            self._buffer.lend(self)
            self._view[:rest] = self._saved
            self._saved = b""
        elif rest and self._start:
            self._view[:rest] = self._view[self._start : self._end]
        self._start = 0
        self._end = rest
        return self._view[rest : self._room]

    def filled(self, count: int) -> None:
        """Note that the first `count` bytes of the room from `writable()` now hold the stream's next bytes."""
        self._end += count

    def frames(self) -> Iterator[memoryview]:
        """Yield each whole message in order, without its length; each is valid until any reader's next `writable()`.

        Untrusted bytes. Raises BadPacket("bad frame length") at a length below 32 or above the largest, unless the
        frame's header fits a session, and again at every later call: nothing that follows in this stream can be
        trusted.
        """
        while not self._broken:
            body = self._start + PREFIX_SIZE
            if body > self._end:
                return
            length = self._view[body - 2] << 8 | self._view[body - 1]
            if not SMALLEST <= length <= self._largest and not self._may_be_longer(body, length):
                self._broken = True
                if self._on_broken is not None:
                    self._on_broken()
                break
            after = body + length
            if after > self._end:
                return
            self._start = after
            yield self._view[body:after]
        self._start = self._end  # drop the broken stream's bytes, so that `writable()` is never without room
        raise BadPacket("bad frame length")

    def _may_be_longer(self, body: int, length: int) -> bool:
        """Return whether a frame of illegal length is accepted all the same, or its header has not arrived yet."""
        if not self._largest < length <= LARGEST_THAT_FITS:
            return False
        if self._end < body + HEADER_SIZE:
            return self._end == body or self._view[body] == DATA
        if not self._is_longer:
            if not self._fits_session(self._view[body : body + HEADER_SIZE]):
                return False
            self._room = max(self._room, PREFIX_SIZE + length)
        self._is_longer = self._end < body + length
        return True

    def save_rest(self) -> None:
        """Copy the unfinished frame out of the buffer, because another reader borrows it now."""
        self._saved = bytes(self._view[self._start : self._end])
        self._end -= self._start
        self._start = 0

    def close(self) -> None:
        """Return the buffer and drop unread bytes; an iteration of `frames()` under way ends."""
        self._buffer.take_back(self)
        self._on_broken = None
        self._saved = b""
        self._start = self._end = 0


def _room_for(largest: int) -> int:
    """Return the buffer size for frames up to `largest`: 256 KiB for 65,535 bytes.

    One receive can take many frames, and an unfinished frame always has room for its rest.
    """
    return 4 * (largest + 1)
