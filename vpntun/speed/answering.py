"""The end that is asked for a speed test: it receives or sends what the asker wants, within bounds of its own.

    one test at a time in the whole process
    at most 30 s in each direction
    a quarter of the time for each peer, after four minutes at once. A test costs its seconds, and 5 s more because its
    asker may be slow to end it
    a test ends if its asker has not asked for its state for 2 s (5 s, if this end receives)

The end of a test can be asked for until the next one begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vpntun.core.bucket import TokenBuckets
from vpntun.core.speed.agreement import BAD_REQUEST, BUSY, NO_SUCH_TEST, TOO_OFTEN, Demand, State
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.log import log
from vpntun.runtime.loop import Loop
from vpntun.speed.trial import Trial

SHARE_OF_TIME, SECONDS_AT_ONCE = 0.25, 240
SECONDS_TO_END = 5
SILENCE_OF_SENDER, SILENCE_OF_RECEIVER = 2.0, 5.0
LATEST_END = 10.0
"""Seconds beside those of a test after which it ends, although its asker still asks for its state."""
BETWEEN_LOOKS = 0.25


class Answering:
    """Answers to the demands of all links' peers. `may_begin`: whether this end asks for no test itself."""

    def __init__(self, loop: Loop, seal_buffer: SealBuffer, may_begin: Callable[[], bool]) -> None:
        self._loop = loop
        self._seal_buffer = seal_buffer
        self._may_begin = may_begin
        self._seconds: TokenBuckets[Link] = TokenBuckets(SHARE_OF_TIME, SECONDS_AT_ONCE)
        """The seconds that each peer may still have tests for."""
        self._trial: Trial | None = None
        self._is_open = False
        self._heard_at = 0.0
        self._patience = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a test goes on that a peer has asked for."""
        return self._is_open

    def answer(self, link: Link, content: dict[str, Any]) -> Mapping[str, Any]:
        """Return the answer to a demand of a link's peer."""
        demand = Demand.parse(content)
        if demand is None:
            return {"refused": BAD_REQUEST}
        if demand.do in ("receive", "send"):
            return self._begin(link, demand)
        trial = self._trial
        if trial is None or trial.link is not link or trial.id != demand.test:
            return {"refused": NO_SUCH_TEST}
        self._heard_at = self._loop.now
        if demand.do == "stop":
            self._close()
        return self._state_of(trial).pack()

    def _begin(self, link: Link, demand: Demand) -> Mapping[str, Any]:
        if self._is_open or not self._may_begin():
            return {"refused": BUSY}
        now = self._loop.now
        if not self._seconds.of(link).take(now, demand.seconds + SECONDS_TO_END):
            return {"refused": TOO_OFTEN}
        sends = demand.do == "send"
        log.debug("%s asks for a speed test of %d s", link.name or "the peer", demand.seconds)
        trial = self._trial = Trial(link, self._loop, demand.test, demand.seconds, receives=not sends)
        self._is_open = True
        self._heard_at = now
        self._patience = SILENCE_OF_SENDER if sends else SILENCE_OF_RECEIVER
        if sends:
            trial.measure()
            trial.send(self._seal_buffer, 0.0)
        self._look(trial)
        return {"agreed": True}

    def _look(self, trial: Trial) -> None:
        """Look from time to time whether the test has ended, or its asker has gone."""
        if trial is not self._trial or not self._is_open:
            return
        has_sent = trial.sender is not None and trial.sender.has_ended
        now = self._loop.now
        is_over = now - trial.began_at > trial.seconds + LATEST_END
        if has_sent or is_over or now - self._heard_at > self._patience:
            self._close()
        else:
            self._loop.call_later(BETWEEN_LOOKS, lambda: self._look(trial))

    def _close(self) -> None:
        if self._is_open and self._trial is not None:
            self._is_open = False
            self._trial.close()

    def _state_of(self, trial: Trial) -> State:
        sent, lost = trial.lost or (None, None)
        if trial.sender is None:
            sent = lost = None
        return State(self._is_open, trial.arrivals.total, trial.arrivals.rate(self._loop.now), sent, lost)
