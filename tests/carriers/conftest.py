"""Fixtures of the carriers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.carriers.house import House
from tests.machine import HandLoop


@pytest.fixture
def house(loop: HandLoop) -> Iterator[House]:
    with ExitStack() as stack:
        yield House(loop, stack)
