"""Fixtures of the carriers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.carriers.tcp_server import TcpServer
from tests.machine import HandLoop


@pytest.fixture
def server(loop: HandLoop) -> Iterator[TcpServer]:
    with ExitStack() as stack:
        yield TcpServer(loop, stack)
