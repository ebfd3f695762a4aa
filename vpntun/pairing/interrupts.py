"""Signals that end a pairing: what was begun is undone, and then the process dies of the signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vpntun.runtime.process_one import ending_action

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal has come that ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP raise Interrupted inside a `with` block, which then ends the process.

    A signal that is ignored stays so. Those that follow the first are ignored, too, while what was begun is undone.
    """
    handled = [number for number in _ENDING_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    former = {number: signal.signal(number, _interrupt) for number in handled}
    try:
        yield
    except Interrupted as interrupted:
        signal.signal(interrupted.number, ending_action())
        os.kill(os.getpid(), interrupted.number)
        raise  # it is still there, as process 1 of a container may be
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _interrupt(number: int, _: FrameType | None) -> None:
    for each in _ENDING_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(number)
