"""The end that asks for a speed test, and measures a link in three phases.

    idle    round trips for a second, while only other traffic flows
    up      this end sends, and the peer counts
    down    the peer sends, and this end counts

The peer is asked for the state of the test every 0.75 s, and ends its part once nobody asks.
Any failure ends the test, with its reason as `error`.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from vpntun.core.speed.agreement import Demand, Order, State, explain_refusal
from vpntun.core.speed.round_trips import summary
from vpntun.errors import CannotAsk
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.speed.trial import Trial
from vpntun.wire.inside.request import SPEED

IDLE_SECONDS = 1.0
BETWEEN_STATES = 0.75
BETWEEN_LOOKS = 0.1
SECONDS_TO_SETTLE = 0.3
"""Seconds after the end of a direction until its last REPORTs have come, beside a round trip."""
LATE = 3.0
"""Seconds after which a sender has certainly stopped, beside those of the test."""
LOOKS_IN_A_RATE = 10

Phase = Literal["idle", "up", "down"]
Status = Literal["running", "done", "failed", "stopped"]


class SpeedTest:
    """A speed test of one link.

    status   what has become of it
    phase    what it measures now, or measured last
    error    why it failed
    result   what has been measured so far: for "idle" the round trips, for "up" and "down" also rate, bytes and loss
    """

    def __init__(self, link: Link, loop: Loop, seal_buffer: SealBuffer, seconds: int) -> None:
        """Begin. Raises CannotAsk if the peer cannot take part."""
        self.link = link
        self.seconds = seconds
        self.status: Status = "running"
        self.phase: Phase = "idle"
        self.error: str | None = None
        self.result: dict[str, Any] = {}
        self._loop = loop
        self._seal_buffer = seal_buffer
        self._id = _new_id()
        self._state = State(is_running=True)
        self._round_trip = 0.0
        self._carried: deque[tuple[float, float]] = deque(maxlen=LOOKS_IN_A_RATE + 1)
        self._trial = Trial(link, loop, self._id, IDLE_SECONDS)
        try:
            self._ask("receive", self._measure_idle)
        except CannotAsk:
            self._trial.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether it goes on."""
        return self.status == "running"

    @property
    def progress(self) -> float:
        """The part of this phase that is over, 0 to 1."""
        seconds = IDLE_SECONDS if self.phase == "idle" else self.seconds
        return min(1.0, max(0.0, (self._loop.now - self._trial.began_at) / seconds))

    @property
    def rate(self) -> float | None:
        """Bytes a second in the last second of a direction; None if that is not known."""
        if len(self._carried) < 2:
            return None
        (since, before), (until, after) = self._carried[0], self._carried[-1]
        return (after - before) / (until - since) if until > since else None

    def stop(self) -> None:
        """End the test at both ends."""
        if self.is_running:
            self._end("stopped")

    # Phases

    def _measure_idle(self) -> None:
        self._trial.close()
        self._trial = Trial(self.link, self._loop, self._id, IDLE_SECONDS)
        self._trial.measure()
        self._keep_asking(self._id)
        self._loop.call_later(IDLE_SECONDS, self._safely(self._begin_up))

    def _begin_up(self) -> None:
        latency = summary(self._trial.trips.taken)
        self.result["idle"] = _round_trips(self._trial)
        self._round_trip = latency.shortest if latency is not None else 0.0
        self._begin("up", Trial(self.link, self._loop, self._id, self.seconds))
        self._trial.send(self._seal_buffer, self._round_trip)
        self._look()

    def _begin_down(self) -> None:
        self._id = _new_id()
        self._begin("down", Trial(self.link, self._loop, self._id, self.seconds, receives=True))
        self._state = State(is_running=True)
        self._ask("send", self._receive)

    def _receive(self) -> None:
        self._keep_asking(self._id)
        self._look()

    def _begin(self, phase: Phase, trial: Trial) -> None:
        self._trial.close()
        self.phase, self._trial = phase, trial
        self._carried.clear()
        trial.measure()

    def _look(self) -> None:
        """Look whether the direction has come to its end."""
        trial, sender, now = self._trial, self._trial.sender, self._loop.now
        if sender is None:
            carried: float = trial.arrivals.total
            goes_on = self._state.is_running and now - trial.began_at < trial.seconds + LATE
        else:
            carried, goes_on = sender.delivered, not sender.has_ended
        self._carried.append((now, carried))
        if sender is not None and sender.was_silent:
            self._fail("nothing that was sent for 2 s has arrived at the peer: see 'vpntun show'")
        elif sender is None and not self._state.is_running and now - trial.began_at < trial.seconds:
            self._fail("the peer has stopped sending too early, after 2 s without an answer: see 'vpntun show'")
        elif goes_on:
            self._loop.call_later(BETWEEN_LOOKS, self._safely(self._look))
        else:
            self._loop.call_later(SECONDS_TO_SETTLE + 2 * self._round_trip, self._safely(self._ask_for_the_end))

    def _ask_for_the_end(self) -> None:
        self._ask("stop", self._take_result)

    def _take_result(self) -> None:
        trial, state = self._trial, self._state
        if self.phase == "up":
            lost, arrived = trial.lost, (state.rate, state.bytes)
        else:
            lost = None if state.sent is None or state.lost is None else (state.sent, state.lost)
            arrived = (trial.arrivals.rate(self._loop.now), trial.arrivals.total)
        loss = None if lost is None or not lost[0] else min(1.0, lost[1] / lost[0])
        self.result[self.phase] = {
            "rate": round(arrived[0]),
            "bytes": arrived[1],
            "loss": loss,
            **_round_trips(trial),
        }
        if self.phase == "up":
            self._begin_down()
        else:
            self._end("done")

    # Requests

    def _ask(self, do: Order, then: Callable[[], None]) -> None:
        """Ask the peer, and go on when it has answered. Raises CannotAsk."""
        seconds = self.seconds if do in ("receive", "send") else 0
        demand = Demand(do, self._id, seconds)

        def answered(content: dict[str, Any] | None) -> None:
            if not self.is_running or demand.test != self._id:
                return
            if content is None:
                self._fail("the peer has not answered within 10 s: see 'vpntun show'")
            elif "refused" in content:
                self._fail(explain_refusal(content))
            else:
                if not seconds:
                    self._state = State.parse(content) or self._state
                self._safely(then)()

        self.link.ask(SPEED, demand.pack(), answered)

    def _keep_asking(self, id: int) -> None:
        """Ask for the state from time to time, which tells the peer that this end is there."""
        if not self.is_running or id != self._id:
            return
        with suppress(CannotAsk):  # it is asked again soon, and the peer has patience
            self._ask("state", lambda: None)
        self._loop.call_later(BETWEEN_STATES, lambda: self._keep_asking(id))

    def _safely(self, step: Callable[[], None]) -> Callable[[], None]:
        """Return a step that is done only while the test runs, and whose failure ends it."""

        def do() -> None:
            if not self.is_running:
                return
            try:
                step()
            except CannotAsk as error:
                self._fail(str(error))

        return do

    # The end

    def _fail(self, reason: str) -> None:
        self.error = reason
        self._end("failed")

    def _end(self, status: Status) -> None:
        if status != "done":
            with suppress(CannotAsk):
                self.link.ask(SPEED, Demand("stop", self._id).pack(), lambda _: None)
        self.status = status
        self._trial.close()


def _new_id() -> int:
    return secrets.randbits(64)


def _round_trips(trial: Trial) -> dict[str, Any]:
    """Return the round trips of a trial, in seconds."""
    found = summary(trial.trips.taken)
    if found is None:
        return {"round_trip": None, "round_trip_95": None}
    return {"round_trip": found.median, "round_trip_95": found.most}
