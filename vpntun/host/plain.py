"""Packets to a peer that takes no records: as WireGuard sends them, one a message.

1. a superpacket is split into packets with finished checksums
2. each is padded to a multiple of 16, at most to the MTU, and sealed behind the last one
3. messages of one size (the last may be shorter) leave together, by UDP_SEGMENT; over TCP, each behind its length
"""

from __future__ import annotations

from vpntun.crypto.session import Session
from vpntun.errors import BadPacket
from vpntun.host.link import Link
from vpntun.wire.gso import Splitter
from vpntun.wire.message import DATA_OVERHEAD, LARGEST

PADDING = 16
MOST_MESSAGES = 64
LARGEST_BATCH = 65507
LARGEST_CARRIED = LARGEST - DATA_OVERHEAD
STRIDE = 2048
MOST_PIECES = 16


class PlainSender:
    """Sends packets of any link; `flush` when no more are at hand, or when another link's turn comes."""

    def __init__(self, mtu: int) -> None:
        self._mtu = min(mtu, LARGEST_CARRIED)
        self._splitter = Splitter()
        self._pieces = memoryview(bytearray(MOST_PIECES * max(STRIDE, mtu)))
        self._plaintext = memoryview(bytearray(LARGEST + PADDING))
        self._batch = memoryview(bytearray(2 * LARGEST))
        self._size = 0  # of the messages in the batch
        self._end = 0
        self.pending = 0
        """How many messages are sealed and not sent."""
        self._link: Link | None = None

    def send(self, link: Link, session: Session, packet: memoryview, field: int) -> None:
        """Send a packet or superpacket. Raises BadPacket for what cannot be split or carried."""
        if not field:
            self._seal(link, session, packet)
            return
        splitter = self._splitter
        count = splitter.split(packet, field)
        stride = max(STRIDE, splitter.length)
        fit = len(self._pieces) // stride
        if not fit:
            raise BadPacket("too large")
        for first in range(0, count, fit):
            written = splitter.write(first, fit, self._pieces, 0, stride)
            for index in range(written):
                length = splitter.last_length if first + index == count - 1 else splitter.length
                self._seal(link, session, self._pieces[index * stride : index * stride + length])

    def discard(self) -> None:
        """Drop what is sealed and not sent."""
        self._link, self.pending, self._size, self._end = None, 0, 0, 0

    def flush(self) -> None:
        """Send what is sealed."""
        link, count, size, end = self._link, self.pending, self._size, self._end
        self.discard()
        session = link.peer.keys.current if link is not None else None
        path = link.path if link is not None else None
        if link is None or session is None or path is None or not count:
            return
        outcome = path.send([self._batch[:end]], size if count > 1 else 0, whole=False)
        link.account(session, outcome, end, link.now)

    def _seal(self, link: Link, session: Session, packet: memoryview) -> None:
        length = len(packet)
        if length > LARGEST_CARRIED:
            raise BadPacket("too large")
        padded = max(length, min(length + -length % PADDING, self._mtu))
        size = padded + DATA_OVERHEAD
        full = self.pending == MOST_MESSAGES or self._end + size > LARGEST_BATCH
        if link is not self._link or full or size > self._size:
            self.flush()
            self._link, self._size = link, size
        plaintext = self._plaintext[:padded]
        plaintext[:length] = packet
        plaintext[length:] = bytes(padded - length)
        self._end += session.seal_into(plaintext, self._batch[self._end :])
        self.pending += 1
        if size < self._size:
            self.flush()
