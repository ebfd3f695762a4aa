"""Two ends of a link that take part in speed tests, on fake devices and carriers, under a clock of the test's own."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tests.datapath.ends import ALICE, BOB, End, TwoEnds
from tests.machine import HandLoop
from vpntun.carriers.fake import FakeEndpoint
from vpntun.speed.speed_tests import SpeedTests
from vpntun.types import CarrierName
from vpntun.wire.inside.request import SPEED

STEP = 0.01


class Ends(TwoEnds):
    """Alice, who asks for tests, and Bob, with a session between them and a path of a limited rate.

    `rate`: bytes a second in each direction; `loss`: the share of datagrams that are lost at random.
    `queue`: bytes that wait at most.
    """

    def __init__(self, loop: HandLoop, rate: float = 1e6, carrier: CarrierName = "udp", *, plain: bool = False) -> None:
        super().__init__(End(ALICE, loop), End(BOB, loop, plain=plain), carrier)
        self.rate, self.loss, self.queue = rate, 0.0, 1e9
        self.carried = 0
        self.wire.shake_hands()
        self.asking, self.answering = (SpeedTests(loop, end.seal_buffer) for end in (self.alice, self.bob))
        self.alice.engine.answers.add(SPEED, self.asking.answer)
        self.bob.engine.answers.add(SPEED, self.answering.answer)
        self._waiting: dict[FakeEndpoint, deque[bytes]] = {self.wire.to_right: deque(), self.wire.to_left: deque()}
        self._budget: dict[FakeEndpoint, float] = dict.fromkeys(self._waiting, 0.0)
        self._random = random.Random(1)

    def run(self, seconds: float, until: Callable[[], object] = lambda: False) -> None:
        """Let time pass, until the condition holds."""
        for _ in range(round(seconds / STEP)):
            if until():
                return
            self.loop.pass_time(STEP)
            for end in (self.alice, self.bob):
                end.schedule.deadline()
                end.schedule.handle(self.loop.now)
            self._carry()

    def _carry(self) -> None:
        for endpoint, receiver, source in (
            (self.wire.to_right, self.bob, self.wire.to_left),
            (self.wire.to_left, self.alice, self.wire.to_right),
        ):
            waiting = self._waiting[endpoint]
            for message in endpoint.take():
                is_lost = self._random.random() < self.loss
                if not is_lost and sum(map(len, waiting)) < self.queue:
                    waiting.append(message)
            self._budget[endpoint] = min(self._budget[endpoint], 0.0) + self.rate * STEP
            while waiting and self._budget[endpoint] > 0:
                message = waiting.popleft()
                self._budget[endpoint] -= len(message)
                self.carried += len(message)
                receiver.take(message, source)
