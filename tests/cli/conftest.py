"""What all tests of the command line share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    log = logging.getLogger("vpntun")
    former = log.handlers, log.level, log.propagate
    log.handlers = []
    yield
    log.handlers, log.propagate = former[0], former[2]
    log.setLevel(former[1])
