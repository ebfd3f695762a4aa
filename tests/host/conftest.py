"""Loops, and the process's signal handlers put back after each test."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.host.machine import HandLoop


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    former = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in former:
        signal.signal(number, handler)


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    """A loop that the test turns."""
    made = HandLoop()
    yield made
    made.close()
