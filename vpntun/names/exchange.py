"""Questions and answers of one TCP connection, each behind its length in two bytes (RFC 7766), as an `Exchange`.

A client may send several questions without waiting; they are answered one after the other. One that is longer than any
question, or that gets no answer, ends the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from vpntun.names.answering import LARGEST_QUESTION
from vpntun.serving.exchange import Reply

Take = Callable[[bytes, Callable[[bytes], None]], bool]
"""Takes a message, and delivers its answer now or later; False if there will be none."""

_LENGTH = struct.Struct("!H")


class NameExchange:
    """The exchange of one connection. `on_ready` is called when an answer is ready that was not at once."""

    def __init__(self, take: Take, on_ready: Callable[[], None]) -> None:
        self.ended = self.awaits_answer = False
        self.stream = None
        self._take = take
        self._on_ready = on_ready
        self._received = bytearray()
        self._no_more = self._is_asking = False
        self._answer: bytes | None = None

    @property
    def idle(self) -> bool:
        """Whether no part of a question is waiting to be answered."""
        return not self._received and not self.awaits_answer

    def take(self, data: bytes) -> None:
        """Take bytes that came in; b"" is the end of the stream. Never called after that, or once `ended`."""
        self._received += data
        self._no_more = not data

    def next_answer(self) -> Reply | None:
        """Return the next answer, or None while there is none."""
        if self._answer is None and not self.awaits_answer and not self.ended:
            self._ask_next()
        if self._answer is None:
            return None
        answer, self._answer, self.awaits_answer = self._answer, None, False
        return _LENGTH.pack(len(answer)) + answer, None

    def _ask_next(self) -> None:
        """Hand over the next question that has arrived in full."""
        received = self._received
        size = _LENGTH.unpack_from(received)[0] if len(received) >= _LENGTH.size else None
        if size is None or len(received) < _LENGTH.size + size <= _LENGTH.size + LARGEST_QUESTION:
            self.ended = self._no_more
            return
        question = bytes(received[_LENGTH.size : _LENGTH.size + size])
        del received[: _LENGTH.size + size]
        self.awaits_answer = self._is_asking = True
        if size > LARGEST_QUESTION or not self._take(question, self._deliver):
            self.awaits_answer, self.ended = False, True
        self._is_asking = False

    def _deliver(self, answer: bytes) -> None:
        self._answer = answer
        if not self._is_asking:
            self._on_ready()
