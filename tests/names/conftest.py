"""The outside's name servers, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.machine import HandLoop
from tests.names.outside import Outside


@pytest.fixture
def outside(loop: HandLoop) -> Iterator[Outside]:
    """A name server of the outside."""
    made = Outside(loop)
    yield made
    made.close()


@pytest.fixture
def second(loop: HandLoop) -> Iterator[Outside]:
    """Another one."""
    made = Outside(loop)
    yield made
    made.close()
