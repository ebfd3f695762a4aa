"""How the tests share two processors: five run side by side, and tests that would disturb each other are kept apart.

group          tests                                         why together
running        the files of tests/netns not named below      one worker's share
installed      tests/boot and the documents' examples        they share one installation
waiting        ... that mostly wait for the program's timers they leave the processors to others
measuring      ... that measure times, memory, lost packets  never two at once
moving         files of tests/netns that move much           never two at once, or neither gets anywhere
reaching       ... of runs, forwards, names and services     one worker's share
examining      ... of commands that examine a tunnel         one worker's share
routing        ... about routes                              one worker's share
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

import hypothesis
import pytest

from tests.machine import HandLoop
from tests.netns.lab import remove_state_folders
from vpntun.runtime.log import log

hypothesis.settings.register_profile("vpntun", deadline=None)  # other programs may use the processors, too
hypothesis.settings.load_profile("vpntun")

HERE = Path(__file__).parent
WORKERS = 5  # as in scripts/test
NETNS = {
    "moving": ["offloads", "wireguard", "wireguard_sizes", "tap"],
    "waiting": [
        *("restarts", "transports", "bad_input", "wireguard_nat", "wireguard_clients", "kernel_wireguard"),
        *("states", "pairing", "bridged_lans"),
    ],
    "measuring": [
        *("steadiness", "two_commands", "many", "wan", "soak", "kernel", "upkeep", "narrow_paths", "floods"),
        *("speed", "capture", "tap_hub"),
    ],
    "reaching": [
        *("run", "run_files", "run_forwards", "run_leaks", "run_refusals", "run_socks", "run_terminal"),
        *("run_wireguard", "forwards", "services", "dns_server"),
    ],
    "examining": ["doctor", "other_end", "other_carrier", "reach", "watch"],
    "routing": ["routing", "names", "routing_loops", "beside", "vandals", "relay", "udp_over_tcp"],
}
GROUPS = [
    "running",
    "installed",
    "waiting",
    "measuring",
    "moving",
    "reaching",
    "examining",
    "routing",
    "model",
    "sockets",
]
GROUP_OF = {f"test_{name}": group for group, names in NETNS.items() for name in names}
INSTALLED = {"boot", "test_examples.py"}
ROOMS_WITH_SOCKETS = {
    "carriers",
    "control",
    "datapath",
    "names",
    "forwards",
    "netconf",
    "pairing",
    "process",
    "runtime",
    "services",
    "serving",
    "socks",
    "tun",
    "uapi",
}
WITH_SOCKETS = ROOMS_WITH_SOCKETS | {"test_load.py"}


def group_of(path: Path) -> str | None:
    """The group of a test file, given relative to this folder; None: each of its tests may run anywhere."""
    room = path.parts[0]
    if room == "netns":
        return GROUP_OF.get(path.stem, "running")
    if room in INSTALLED:
        return "installed"
    if path.stem == "test_model":
        return "model"
    return "sockets" if room in WITH_SOCKETS else None


def pytest_configure(config: pytest.Config) -> None:
    """Have groups handed out in our order, and signals work although the tests were started in the background."""
    config.option.loadscopereorder = False  # xdist hands groups out in the order of the tests, not of their numbers
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup, and then in all that the tests start
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # ignored in the background of a script, as SIGINT is


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give all tests of a group to one worker.

    xdist's own way, a mark and --dist loadgroup, groups nothing under pytest 9.2: it writes the group into a test's
    name where pytest no longer reads it.
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

    def scope_of(nodeid: str) -> str:
        path = config.rootpath / nodeid.partition("::")[0]
        return group_of(path.relative_to(HERE)) or nodeid

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests by group.

    Each worker is given two groups at the start, so that a few single tests follow the longest: no second long one
    waits behind a first.
    """
    grouped: dict[str | None, list[pytest.Item]] = {name: [] for name in (*GROUPS, None)}
    for item in items:
        grouped[group_of(item.path.relative_to(HERE))].append(item)
    single = grouped.pop(None)
    longest = [item for name in GROUPS[:WORKERS] for item in grouped.pop(name)]
    rest = [item for items_of_one in grouped.values() for item in items_of_one]
    items[:] = [*longest, *single[:WORKERS], *rest, *single[WORKERS:]]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the process's signal handlers after each test."""
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT
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


def pytest_unconfigure() -> None:
    """Remove what a run leaves outside its own folders."""
    remove_state_folders()
