"""Fixtures of the tests of forwards: what a test opens is closed at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def made() -> Iterator[ExitStack]:
    """Closes what the test has made."""
    with ExitStack() as stack:
        yield stack
