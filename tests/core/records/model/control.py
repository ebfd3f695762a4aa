"""Congestion controls of the model's TCP senders, each of which sets a window and a pace."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Protocol

from tests.core.records.model.line import (
    SUPERPACKET,
)


class Control(Protocol):
    """Congestion control. `window`: segments; `pace`: segments a second, infinite for a sender that does not pace."""

    window: float
    pace: float

    def acked(self, sample: Sample) -> None:
        """Take in an acknowledgement."""

    def lost(self, now: float) -> None:
        """Reduce the window: segments were lost, for the first time in this round trip."""

    def undo(self) -> None:
        """Undo the last `lost`: the segments have arrived after all."""


@dataclass(slots=True)
class Sample:
    """Measurements of one acknowledgement. `round` counts round trips; `rate` is in segments a second, 0 if unknown."""

    now: float
    count: int
    round_trip: float
    shortest: float
    round: int
    rate: float
    in_flight: int


class Cubic:
    """Roughly RFC 9438 with HyStart's delay rule."""

    BETA, SCALE = 0.7, 0.4

    def __init__(self) -> None:
        self.window = 10.0
        self.pace = inf
        self._threshold = inf
        self._peak = 0.0
        self._epoch: float | None = None
        self._origin = self._turn = self._reno = 0.0
        self._before = (10.0, inf, 0.0)
        self._round = -1
        self._round_samples = 0
        self._round_shortest = inf

    def acked(self, sample: Sample) -> None:
        if self.window < self._threshold:
            self._look_at_delay(sample)
            self.window += sample.count
            return
        now, count, window = sample.now, sample.count, self.window
        if self._epoch is None:
            self._epoch = now
            self._reno = window
            self._origin = max(window, self._peak)
            self._turn = ((self._origin - window) / self.SCALE) ** (1 / 3)
        target = self._origin + self.SCALE * (now - self._epoch + sample.shortest - self._turn) ** 3
        step = min(0.5, max(0.01, (target - window) / window))
        self._reno += 3 * (1 - self.BETA) / (1 + self.BETA) * count / window
        self.window = max(window + count * step, self._reno)

    def lost(self, now: float) -> None:
        window = self.window
        self._before = window, self._threshold, self._peak
        self._peak = window * (1 + self.BETA) / 2 if window < self._peak else window
        self.window = self._threshold = max(2.0, window * self.BETA)
        self._epoch = None

    def undo(self) -> None:
        window, self._threshold, self._peak = self._before
        self.window = max(self.window, window)
        self._epoch = None

    def _look_at_delay(self, sample: Sample) -> None:
        """End slow start if the first eight round trips of a round all exceed the shortest by an eighth."""
        if sample.round != self._round:
            self._round, self._round_samples, self._round_shortest = sample.round, 0, inf
        self._round_samples += 1
        self._round_shortest = min(self._round_shortest, sample.round_trip)
        longer = min(0.016, max(0.004, sample.shortest / 8))
        if self._round_samples == 8 and self.window >= 16 and self._round_shortest > sample.shortest + longer:
            self._threshold = self.window


class LinuxCubic(Cubic):
    """CUBIC with Linux's second HyStart rule: an unbroken train of ACKs half a round trip long ends slow start."""

    CLOSE = 0.002

    def __init__(self) -> None:
        super().__init__()
        self._train_round = -1
        self._train_began = self._train_ends = 0.0

    def acked(self, sample: Sample) -> None:
        if self.window < self._threshold:
            self._look_at_train(sample.now, sample)
        super().acked(sample)

    def _look_at_train(self, now: float, sample: Sample) -> None:
        if sample.round != self._train_round:
            self._train_round, self._train_began, self._train_ends = sample.round, now, now
        elif now - self._train_ends <= self.CLOSE:
            self._train_ends = now
            if self.window >= 16 and now - self._train_began > sample.shortest / 2:
                self._threshold = self.window


class Bbr:
    """Roughly BBR v1, without the probe of the round trip every ten seconds."""

    HIGH = 2.885
    CYCLE = (1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    ROUNDS = 10

    def __init__(self) -> None:
        self.window = 10.0
        self.pace = inf
        self._rates: deque[tuple[int, float]] = deque()
        self._gain = self.HIGH
        self._mode = "startup"
        self._full = 0.0
        self._full_rounds = 0
        self._round = -1
        self._phase = 2
        self._phase_began = 0.0

    def acked(self, sample: Sample) -> None:
        rates = self._rates
        while rates and rates[0][0] < sample.round - self.ROUNDS:
            rates.popleft()
        if sample.rate:
            while rates and rates[-1][1] <= sample.rate:
                rates.pop()
            rates.append((sample.round, sample.rate))
        if not rates:
            return
        rate = rates[0][1]
        pipe = rate * sample.shortest
        if self._mode == "startup":
            self._look_whether_full(sample.round, rate)
        if self._mode == "drain" and sample.in_flight <= pipe:
            self._mode = "probe"
            self._phase_began = sample.now
            self._gain = self.CYCLE[self._phase]
        elif self._mode == "probe":
            self._go_on(sample, pipe)
        self.pace = self._gain * rate
        self.window = max(4.0, (self.HIGH if self._mode == "startup" else 2.0) * pipe + 3 * chunk_at(self.pace))

    def lost(self, now: float) -> None:
        pass

    def undo(self) -> None:
        pass

    def _look_whether_full(self, this_round: int, rate: float) -> None:
        if this_round == self._round:
            return
        self._round = this_round
        if rate >= 1.25 * self._full:
            self._full, self._full_rounds = rate, 0
            return
        self._full_rounds += 1
        if self._full_rounds == 3:
            self._mode = "drain"
            self._gain = 1 / self.HIGH

    def _go_on(self, sample: Sample, pipe: float) -> None:
        elapsed = sample.now - self._phase_began >= sample.shortest
        if (elapsed and (self._gain <= 1 or sample.in_flight >= 1.25 * pipe)) or (
            self._gain < 1 and sample.in_flight <= pipe
        ):
            self._phase = (self._phase + 1) % len(self.CYCLE)
            self._phase_began = sample.now
            self._gain = self.CYCLE[self._phase]


def chunk_at(pace: float) -> int:
    """Return the number of segments to send at once when pacing: those of one millisecond."""
    return int(min(SUPERPACKET, max(2, pace / 1000)))
