"""Speed tests of one process, of which one runs at a time, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vpntun.core.speed.agreement import LONGEST
from vpntun.errors import CannotTest
from vpntun.link.link import Link
from vpntun.link.seal_buffer import SealBuffer
from vpntun.runtime.loop import Loop
from vpntun.speed.answering import Answering
from vpntun.speed.asking import SpeedTest


class SpeedTests:
    """The tests that this end asks for, and those that it is asked for. `last`: the last one that it has asked for."""

    def __init__(self, loop: Loop, seal_buffer: SealBuffer) -> None:
        self.last: SpeedTest | None = None
        self._loop = loop
        self._seal_buffer = seal_buffer
        self._answering = Answering(loop, seal_buffer, lambda: not self.is_asking)

    @property
    def is_asking(self) -> bool:
        """Whether a test goes on that this end has asked for."""
        return self.last is not None and self.last.is_running

    @property
    def is_busy(self) -> bool:
        """Whether any test goes on."""
        return self.is_asking or self._answering.is_busy

    def start(self, link: Link, seconds: int) -> SpeedTest:
        """Begin a test of a link. Raises CannotTest, or CannotAsk if the peer cannot take part."""
        if not 1 <= seconds <= LONGEST:
            raise CannotTest(f"a speed test takes 1 to {LONGEST} seconds in each direction")
        if self.is_busy:
            raise CannotTest("a speed test is running already: wait until it has ended")
        self.last = SpeedTest(link, self._loop, self._seal_buffer, seconds)
        return self.last

    def answer(self, link: Link, content: dict[str, Any]) -> Mapping[str, Any]:
        """Answer what a link's peer asks for (core/speed/agreement.py)."""
        return self._answering.answer(link, content)
