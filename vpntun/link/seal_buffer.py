"""Buffers in which every link's messages are sealed, to be sent by as few system calls as possible.

    batch    Messages of one size and TOS byte, each fitting in one datagram; the last may be shorter. They are sent
             together: by one UDP_SEGMENT call, or over TCP each behind its length. Call `flush` when no more are at
             hand.
    burst    A record that needs several datagrams (wire/burst.py). It is sent at once.

One seal buffer serves all links, so that its buffers are few and stay in the processor's cache.
"""

from __future__ import annotations

from typing import Protocol

from vpntun.core.records.span import LARGEST_SEND
from vpntun.crypto.session import Session
from vpntun.wire.burst import BurstCutter
from vpntun.wire.message import DATA_OVERHEAD, LARGEST
from vpntun.wire.stream_framing import PREFIX_SIZE

MOST_MESSAGES = 64


class BatchSender(Protocol):
    """Sender of a batch, which is a link."""

    def send_batch(
        self, session: Session, messages: memoryview, size: int, first: int, count: int, tos: int, *, are_records: bool
    ) -> None:
        """Send `count` messages of `size` bytes, of which the last may be shorter. `first`: the first one's counter.

        `tos`: the TOS byte of their datagrams.
        """


class SealBuffer:
    """Owner of the buffers that messages are sealed into. `pending`: messages that are sealed and not sent."""

    def __init__(self) -> None:
        self.pending = 0
        self._batch = memoryview(bytearray(2 * LARGEST))
        self._size = 0  # of the messages in the batch
        self._end = 0
        self._link: BatchSender | None = None
        self._session: Session | None = None
        self._first_counter = 0
        self.last_counter = 0
        """Counter of the message that was added last."""
        self._are_records = False
        self._tos = 0
        self._frame = memoryview(bytearray(PREFIX_SIZE + LARGEST))
        self._message = self._frame[PREFIX_SIZE:]
        self._padded = memoryview(bytearray(LARGEST))
        self._cutter = BurstCutter(self._message)

    def add(self, link: BatchSender, session: Session, plaintext: memoryview, tos: int = 0, *, is_record: bool) -> bool:
        """Seal one message into the batch; return whether a batch was sent, after which the path may be blocked.

        `tos`: the TOS byte of its datagram. `is_record`: the message is a BUNDLE or a PARITY. The other end accounts
        for it, and no router may cut its datagram.
        """
        size = len(plaintext) + DATA_OVERHEAD
        count = self.pending
        left = False
        if count and (
            size > self._size
            or self._end + size > LARGEST_SEND
            or count == MOST_MESSAGES
            or link is not self._link
            or is_record is not self._are_records
            or tos != self._tos
            or session.send_counter != self._first_counter + count
            or session is not self._session
        ):
            self.flush()
            count = 0
            left = True
        if not count:
            self._link, self._session, self._are_records = link, session, is_record
            self._size, self._first_counter, self._tos = size, session.send_counter, tos
        self.last_counter = session.send_counter
        self._end += session.seal_into(plaintext, self._batch[self._end :])
        self.pending = count + 1
        if size < self._size:
            self.flush()
            return True
        return left

    def flush(self) -> None:
        """Send the batch."""
        link, session, count, end = self._link, self._session, self.pending, self._end
        if not count or link is None or session is None:
            return
        size, first, are_records = self._size, self._first_counter, self._are_records
        self.discard()
        link.send_batch(session, self._batch[:end], size, first, count, self._tos, are_records=are_records)

    def discard(self) -> None:
        """Forget the batch: it was handed over, or an error has interrupted it."""
        self._link = self._session = None
        self.pending = self._size = self._end = 0

    def seal_frame(self, session: Session, plaintext: memoryview) -> memoryview:
        """Seal one message alone; return it with room for its length before it, for `Endpoint.send_frame`."""
        return self._frame[: PREFIX_SIZE + session.seal_into(plaintext, self._message)]

    def seal_burst(self, session: Session, plaintext: memoryview, datagram: int, size: int) -> list[memoryview]:
        """Seal one message alone, and cut it into datagrams of at most `datagram` bytes.

        `size`: if it is not 0, the plaintext is padded with zeros to so many bytes, and a parity is added if the
        message then fills its pieces. The result is valid until the next call.
        """
        length = len(plaintext)
        if length < size:  # padded in a copy, because the next packet follows the record in its buffer
            self._padded[:length] = plaintext
            self._padded[length:size] = bytes(size - length)
            plaintext = self._padded[:size]
        return self._cutter.cut(session.seal_into(plaintext, self._message), datagram, protected=size > 0)
