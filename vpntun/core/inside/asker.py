"""Requests that this end has sent to one peer: repeated while pieces of the answer are missing, and given up in time.

    a request is sent           at once, and again after 0.5 s, 1 s, and three times 2 s
    it is given up              10 s after it was first sent

A repeated request gets the same answer, in all its pieces, so pieces of either copy fit together. Pieces that
contradict each other, or together are no JSON object, are dropped: the next repeat may bring better ones.

Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.inside.request import Answer, Request, parse_body

PAUSES = (0.5, 1.0, 2.0, 2.0, 2.0)
"""Seconds between a request and its repeats."""
GIVE_UP_AFTER = 10.0
MOST_PENDING = 4

OnAnswer = Callable[["dict[str, Any] | None"], None]
"""Called once with the answer, or with None if it did not come in time."""


class Asker:
    """The requests to one peer that wait for their answers. `deadline`: when `handle_timer` is due."""

    __slots__ = ("_pending", "deadline")

    def __init__(self) -> None:
        self._pending: dict[int, _Pending] = {}
        self.deadline = NEVER

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait as may wait."""
        return len(self._pending) >= MOST_PENDING

    def ask(self, request: Request, on_answer: OnAnswer, now: float) -> list[bytes]:
        """Begin to ask; return the records to send."""
        self._pending[request.id] = _Pending(request.pack(), on_answer, now)
        return self.handle_timer(now)

    def received(self, answer: Answer) -> None:
        """Take a piece of an answer; a late copy is ignored. Raises BadPacket for pieces that make no answer."""
        pending = self._pending.get(answer.id)
        if pending is None:
            return
        content = pending.put(answer)
        if content is not None:
            self._end(answer.id, content)

    def handle_timer(self, now: float) -> list[bytes]:
        """Give up what is overdue; return the records to send again."""
        records = []
        for id, pending in list(self._pending.items()):
            if now >= pending.give_up_at:
                self._end(id, None)
            elif now >= pending.due:
                records.append(pending.record)
                pending.note_sent(now)
        self._settle()
        return records

    def stop(self) -> None:
        """Give up all requests."""
        for id in list(self._pending):
            self._end(id, None)

    def _end(self, id: int, content: dict[str, Any] | None) -> None:
        pending = self._pending.pop(id, None)
        self._settle()
        if pending is not None:
            pending.on_answer(content)

    def _settle(self) -> None:
        self.deadline = min((min(each.due, each.give_up_at) for each in self._pending.values()), default=NEVER)


class _Pending:
    """One request, with the pieces of its answer that have come."""

    __slots__ = ("_pauses", "_pieces", "due", "give_up_at", "on_answer", "record")

    def __init__(self, record: bytes, on_answer: OnAnswer, now: float) -> None:
        self.record = record
        self.on_answer = on_answer
        self.due = now
        self.give_up_at = now + GIVE_UP_AFTER
        self._pauses = iter(PAUSES)
        self._pieces: dict[int, Answer] = {}

    def note_sent(self, now: float) -> None:
        """Note that the request is sent, and when to repeat it."""
        self.due = now + next(self._pauses, NEVER)

    def put(self, answer: Answer) -> dict[str, Any] | None:
        """Keep a piece; return the content once all pieces are there. Raises BadPacket."""
        pieces = self._pieces
        if any(each.pieces != answer.pieces for each in pieces.values()):
            pieces.clear()
            raise BadPacket("bad answer")
        pieces[answer.piece] = answer
        if len(pieces) < answer.pieces:
            return None
        whole = b"".join(pieces[index].body for index in range(answer.pieces))
        pieces.clear()
        return parse_body(whole)
