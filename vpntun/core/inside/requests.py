"""Requests in both directions between this end and one peer: those sent, and the answers to those that come.

The records that follow from a call are returned as events. No REQUEST or ANSWER starts WireGuard's data timers. Both
move the endpoint by the usual rules, and an answer goes to the peer's endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vpntun.core.events import Event, SendRecord
from vpntun.core.inside.answerer import Answerer, MakeAnswer
from vpntun.core.inside.asker import Asker, OnAnswer
from vpntun.wire.inside.request import Answer, Request, pack_body
from vpntun.wire.record import REQUEST


class Requests:
    """Requests to and from one peer. `make`: makes the answers to those of the peer."""

    __slots__ = ("_answerer", "_asker")

    def __init__(self, make: MakeAnswer) -> None:
        self._asker = Asker()
        self._answerer = Answerer(make)

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due."""
        return min(self._asker.deadline, self._answerer.deadline)

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait for answers as may wait."""
        return self._asker.is_full

    def ask(self, id: int, what: int, content: Mapping[str, Any], on_answer: OnAnswer, now: float) -> list[Event]:
        """Ask the peer. `id`: a random number. `on_answer`: see Asker."""
        return _sent(self._asker.ask(Request(id, what, pack_body(content)), on_answer, now))

    def received(self, record: memoryview, now: float) -> list[Event]:
        """Act on an opened REQUEST or ANSWER. Raises BadPacket for one that is invalid or not welcome."""
        if record[0] == REQUEST:
            return _sent(self._answerer.received(Request.parse(record), now))
        self._asker.received(Answer.parse(record))
        return []

    def look_again(self, now: float) -> list[Event]:
        """Answer requests of the peer whose answers are ready by now."""
        return _sent(self._answerer.look_again(now))

    def handle_timer(self, now: float) -> list[Event]:
        """Do what is due."""
        if now >= self._answerer.deadline:
            self._answerer.handle_timer(now)
        return _sent(self._asker.handle_timer(now)) if now >= self._asker.deadline else []

    def stop(self) -> None:
        """Give up all requests to the peer."""
        self._asker.stop()


def _sent(records: Iterable[bytes]) -> list[Event]:
    return [SendRecord(record) for record in records]
