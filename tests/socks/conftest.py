"""Fixtures of the tests of the SOCKS5 proxy: a proxy, and the other side of its tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.machine import HandLoop
from tests.socks.ends import OtherSide, Proxy


@pytest.fixture
def side(loop: HandLoop) -> OtherSide:
    """The other side of the tunnel."""
    return OtherSide(loop)


@pytest.fixture
def proxy(loop: HandLoop, side: OtherSide) -> Iterator[Proxy]:
    """A proxy on the loopback."""
    with closing(Proxy(loop, side)) as made:
        yield made
