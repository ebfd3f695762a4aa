"""How the tests share two processors: four run side by side, and tests that would disturb each other are kept apart.

group          tests                                         why together
busy           files of tests/netns that measure or move     never two at once
               much
waiting        files of tests/netns that mostly wait for     they leave the processors to others
               the program's timers
short          the other files of tests/netns                one worker's share
installed      tests/boot and the README's examples          they share one installation
model          the model of TCP in tests/core/records        its tests compare the same runs, each made once a worker
sockets        the rooms that open sockets, and a few files  a port that was free must still be free a bit later
(none)         everything else                               pure computation, wherever there is room

Groups are handed out in this order: the longest first, and single tests fill what is left at the end.
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
GROUPS = ["busy", "waiting", "short", "installed", "model", "sockets"]
NETNS = {
    **dict.fromkeys(
        [
            "test_kernel",
            "test_many",
            "test_offloads",
            "test_soak",
            "test_steadiness",
            "test_two_commands",
            "test_wan",
            "test_wireguard",
        ],
        "busy",
    ),
    **dict.fromkeys(["test_bad_input", "test_restarts", "test_routing_loops", "test_transports"], "waiting"),
}
INSTALLED = {"boot", "test_readme.py"}
WITH_SOCKETS = {"carriers", "control", "datapath", "netconf", "process", "runtime", "test_load.py", "tun"}


def group_of(path: Path) -> str | None:
    """The group of a test file, given relative to this folder; None: each of its tests may run anywhere."""
    room = path.parts[0]
    if room == "netns":
        return NETNS.get(path.stem, "short")
    if room in INSTALLED:
        return "installed"
    if path.stem == "test_model":
        return "model"
    return "sockets" if room in WITH_SOCKETS else None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "xdist_group(name): run by one worker, one after the other")
    config.option.loadscopereorder = False  # xdist hands groups out in the order of the tests, not of their numbers


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test's group, and sort by it.

    Each worker is given two groups at the start, so that a few single tests follow the longest: no second long one
    waits behind a first.
    """
    grouped: dict[str | None, list[pytest.Item]] = {name: [] for name in (*GROUPS, None)}
    for item in items:
        group = group_of(item.path.relative_to(HERE))
        grouped[group].append(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    single = grouped.pop(None)
    longest = [item for name in GROUPS[:4] for item in grouped.pop(name)]
    items[:] = [*longest, *single[:4], *(item for rest in grouped.values() for item in rest), *single[4:]]


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
