"""Fixture of the tests of services: three ends, which are closed at the end of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine import HandLoop
from tests.services.town import Town


@pytest.fixture
def town(loop: HandLoop) -> Iterator[Town]:
    made = Town(loop)
    yield made
    made.close()
