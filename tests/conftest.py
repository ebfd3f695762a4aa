"""Groups of tests on two processors, and fixtures of all tests.

Three processes run tests. Tests of one group run in the same process, so never at the same time.

group      tests                                         reason
waiting    files of tests/netns that mostly wait         they leave the processors to others
busy       the other files of tests/netns                each may measure, or transfer much: never two at once
installed  tests/boot and the documents' examples        they share one installation
sockets    the rooms that open sockets, and a few files  a port that was free must still be free a moment later
(none)     the rooms without I/O, cli, the documents     they only compute, and run in any process
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
    """Recorder of internal errors logged in this process. A test takes those that it has caused on purpose."""

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
    """Fail every test during which an internal error was logged, unless the test has taken it."""
    errors = ExpectedErrors()
    log.addFilter(errors)
    yield errors
    log.removeFilter(errors)
    assert errors.take() == [], "an internal error was logged"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        remove_state_folders()
