"""Fixtures of the record protocol's tests."""

from __future__ import annotations

import pytest

from tests.core.records.two import Two


@pytest.fixture
def met() -> Two:
    """Two that have said HELLO, and nothing else."""
    two = Two()
    two.confirm()
    two.run(0.5)
    two.left.said.clear()
    two.right.said.clear()
    return two
