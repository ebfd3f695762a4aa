"""How the tests share two processors: three run side by side, and tests that would disturb each other are kept apart.

group      tests                                         why together
waiting    files of tests/netns that mostly wait         they leave the processors to others
busy       the other files of tests/netns                each may measure, or move much: never two at once
installed  tests/boot and the documents' examples        they share one installation
sockets    the rooms that open sockets, and a few files  a port that was free must still be free a bit later
(none)     the rooms without I/O, cli, the documents     pure computation, wherever there is room
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import HandLoop
from tests.netns.lab import remove_state_folders
from vpntun.runtime.log import log

HERE = Path(__file__).parent
INSTALLED = {"boot", "test_examples.py"}
WITH_SOCKETS = {"carriers", "control", "datapath", "netconf", "process", "runtime", "test_load.py", "tun"}
WAIT_MOSTLY = {
    "test_transports",
    "test_restarts",
    "test_bad_input",
    "test_exits",
    "test_lab",
    "test_devices",
    "test_manner",
    "test_persistent",
    "test_internal_errors",
    "test_routing_loops",
    "test_vandals",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        room = item.path.relative_to(HERE).parts[0]
        if room in INSTALLED:
            item.add_marker(pytest.mark.xdist_group("installed"))
        elif room == "netns":
            item.add_marker(pytest.mark.xdist_group("waiting" if item.path.stem in WAIT_MOSTLY else "busy"))
        elif room in WITH_SOCKETS:
            item.add_marker(pytest.mark.xdist_group("sockets"))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the process's signal handlers after each test."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2
    former = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in former:
        signal.signal(number, handler)


@pytest.fixture
def loop() -> Iterator[HandLoop]:
    """A loop that the test turns."""
    made = HandLoop()
    yield made
    made.close()


class ExpectedErrors(logging.Filter):
    """The internal errors that were logged in this process; a test takes those that it has caused itself."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("internal error") and record.exc_info:
            self._seen.append(repr(record.exc_info[1]))
        return True

    def take(self) -> list[str]:
        seen, self._seen = self._seen, []
        return seen


@pytest.fixture(autouse=True)
def expected_errors() -> Iterator[ExpectedErrors]:
    """Fails every test in whose course a bug was survived, unless the test expected it."""
    errors = ExpectedErrors()
    log.addFilter(errors)
    yield errors
    log.removeFilter(errors)
    assert errors.take() == [], "the loop has survived a bug"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        remove_state_folders()
