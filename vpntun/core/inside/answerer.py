"""Answers to one peer's requests: each is made once, kept for repeats of the request, and limited in rate.

    a request with a known id     gets the kept answer again
    a request with another id     gets an answer that is made now; if it takes longer, a repeat of the request gets it,
                                  or `look_again` sends it
    too many requests             are dropped: 10 at once, 2 a second in the long run, repeats included
    an answer is kept             for 60 s, and at most 4 for a peer

So a peer can draw at most two answers a second from this end, of at most 16 datagrams each. Only a peer with a session
can ask at all.

Times are seconds of the caller's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vpntun.core.bucket import TokenBucket
from vpntun.errors import BadPacket
from vpntun.types import NEVER
from vpntun.wire.inside.request import LARGEST_ANSWER, Request, answers_of, pack_body, parse_body

RATE, BURST = 2.0, 10
"""Requests of one peer that are answered: per second in the long run, and at once."""
MOST_KEPT = 4
"""Answers that are kept, and requests that wait for theirs."""
KEPT_FOR = 60.0
AWAITED_FOR = 10.0
"""Seconds after which a peer has given its request up (asker.py)."""

MakeAnswer = Callable[[int, "dict[str, Any]"], "Mapping[str, Any] | None"]
"""Makes the answer to a request from what it asks for and its body; None while the answer is not ready."""


class Answerer:
    """The answers to one peer. `deadline`: when `handle_timer` is due, which forgets old ones."""

    __slots__ = ("_awaited", "_bucket", "_kept", "_make", "deadline")

    def __init__(self, make: MakeAnswer) -> None:
        self._make = make
        self._bucket = TokenBucket(RATE, BURST)
        self._kept: dict[int, tuple[float, list[bytes]]] = {}
        self._awaited: dict[int, tuple[float, Request]] = {}
        self.deadline = NEVER

    def received(self, request: Request, now: float) -> list[bytes]:
        """Return the records that answer a request. Raises BadPacket if it gets none."""
        if not self._bucket.take(now):
            raise BadPacket("too many requests")
        self.handle_timer(now)
        if request.id in self._kept:
            return self._kept[request.id][1]
        return self._answer(request, now + AWAITED_FOR, now)

    def look_again(self, now: float) -> list[bytes]:
        """Return the records that answer requests whose answers were not ready until now."""
        awaited, self._awaited = self._awaited, {}
        return [
            record for until, request in awaited.values() if now < until for record in self._answer(request, until, now)
        ]

    def _answer(self, request: Request, until: float, now: float) -> list[bytes]:
        """Make an answer, or note that its request waits for it. Raises BadPacket."""
        content = self._make(request.what, parse_body(request.body))
        self._awaited.pop(request.id, None)
        if content is None:
            self._awaited[request.id] = until, request
            if len(self._awaited) > MOST_KEPT:
                del self._awaited[next(iter(self._awaited))]
            return []
        body = pack_body(content)
        if len(body) > LARGEST_ANSWER:
            body = pack_body({"refused": f"the answer has {len(body)} bytes, more than can be sent"})
        records = [answer.pack() for answer in answers_of(request.id, body)]
        self._kept[request.id] = (now + KEPT_FOR, records)
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        self._settle()
        return records

    def handle_timer(self, now: float) -> None:
        """Forget old answers."""
        for id in [id for id, (until, _) in self._kept.items() if now >= until]:
            del self._kept[id]
        self._settle()

    def _settle(self) -> None:
        self.deadline = min((until for until, _ in self._kept.values()), default=NEVER)
