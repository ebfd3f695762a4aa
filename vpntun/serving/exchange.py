"""Protocols between a server and what its connections say: exchanges of requests and answers, and streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Reply = tuple[bytes, Callable[[], None] | None]
"""The bytes of an answer, and what to do once they have left, if anything."""


class Stream(Protocol):
    """An answer in pieces, which come as something happens."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more pieces than those that wait to be taken."""

    def take(self) -> bytes:
        """Return the next piece, or b"" while there is none."""

    def call_on_more(self, callback: Callable[[], None]) -> None:
        """Call back whenever there is a piece again, or the stream has ended."""

    def end(self) -> None:
        """End the stream, because its client or the server has ended. It may have ended before."""


class Exchange(Protocol):
    """The requests and answers of one connection."""

    @property
    def stream(self) -> Stream | None:
        """The stream that is being sent to the client."""

    @property
    def idle(self) -> bool:
        """Whether no part of a request is waiting to be answered."""

    @property
    def awaits_answer(self) -> bool:
        """Whether the next answer is not ready, whatever the client sends. The server goes on once it may be."""

    @property
    def ended(self) -> bool:
        """Whether there will be no more answers, so that the connection may close once the last one has left."""

    def take(self, data: bytes) -> None:
        """Take bytes that came in; b"" is the end of the stream. Never called after that, or once `ended`."""

    def next_answer(self) -> Reply | None:
        """Return the next answer, or None while there is none."""
