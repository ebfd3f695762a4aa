"""The process's signal handlers are put back after each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
    former = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in former:
        signal.signal(number, handler)
