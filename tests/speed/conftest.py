"""Two ends that take part in speed tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine import HandLoop
from tests.speed.ends import Ends


@pytest.fixture
def ends(loop: HandLoop) -> Iterator[Ends]:
    made = Ends(loop)
    yield made
    made.close()
