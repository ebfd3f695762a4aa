"""Names that routes and name servers wait for: none that is found is lost, and a set-up that fails is tried again."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from threading import Event

import pytest

from tests.machine import HandLoop, logged
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines
from vpntun.errors import ConfigurationError, DeviceError, VpntunError
from vpntun.netconf.host import HostNetwork
from vpntun.process import start
from vpntun.process.awaited_names import SECONDS_AFTER_FAILURE, AwaitedNames
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.runtime.resolver import Found, Lookups

HOME = PeerSettings(b"home", (), host="home.example", port=1)


class Network(HostNetwork):
    """A network in which all peers wait for their names. `fails`: what the next attempts to set it raise."""

    def __init__(self) -> None:
        self.fails: list[VpntunError] = []
        self.attempts = 0
        self.is_busy = False
        self.later: list[Callable[[], None]] = []

    def when_set(self, callback: Callable[[], None]) -> None:
        if self.is_busy:
            self.later.append(callback)
        else:
            callback()

    def apply(self, peers: Collection[PeerSettings], is_found: Callable[[str, int], bool]) -> list[PeerSettings]:
        self.attempts += 1
        if self.fails:
            raise self.fails.pop(0)
        return [each for each in peers if not is_found(each.host or "", each.port)]


class Bench:
    """The names of a tunnel whose one peer has not been found. `told`: calls of `on_set`, and errors."""

    def __init__(self, loop: HandLoop, stack: ExitStack) -> None:
        self.loop, self.network = loop, Network()
        self.start = Start(HookLines(), Service(RunOptions(), None, loop, stack), loop, lambda _: None)
        self.told: list[object] = []
        self.names = AwaitedNames(
            self.network, self.start, loop, lambda: self.told.append(list(self.names.peers)), self.told.append
        )
        self._known: set[str] = set()
        self.names.apply([HOME], lambda host, _: host in self._known)

    def find(self) -> None:
        self._known.add("home.example")
        self.names.found()


@pytest.fixture
def bench(loop: HandLoop) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(loop, stack)


def test_what_waited_is_set_when_the_name_is_found(bench: Bench) -> None:
    bench.names.begin()
    assert bench.told == [[HOME]]
    bench.find()
    assert bench.told == [[HOME], []]


def test_a_name_that_is_found_before_the_loop_runs_is_not_lost(bench: Bench) -> None:
    bench.find()
    assert bench.told == []
    bench.names.begin()
    assert bench.told == [[]]


def test_an_answer_that_comes_while_a_command_of_the_start_runs_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Event()

    def find(host: str, port: int, flags: int) -> Found:
        answers.wait(5.0)
        return [(socket.AF_INET, ("192.0.2.7", port))]

    monkeypatch.setattr(start, "SECONDS_FOR_NAMES", 0.0)
    lookups = Lookups(bench.loop, bench.names.found, find)
    bench.start.find_names(lookups, [HOME])
    bench.names.apply([HOME], lookups.has_found)
    lookups.ask("home.example", 1, lambda found, error: None)
    answers.set()
    bench.loop.until(lambda: lookups.has_found("home.example", 1), "as --up would")
    bench.loop.settle()
    assert bench.told == []
    bench.names.begin()
    assert bench.told == [[]]
    lookups.close()


def test_a_set_up_that_fails_is_tried_again_until_it_succeeds_and_ends_nothing(bench: Bench) -> None:
    bench.names.begin()
    bench.network.fails = [DeviceError("no room") for _ in range(4)]
    with logged() as lines:
        bench.find()
        bench.names.found()
        bench.loop.pass_time(SECONDS_AFTER_FAILURE)
        assert bench.network.attempts == 4
        bench.loop.pass_time(SECONDS_AFTER_FAILURE)
        assert bench.told == [[HOME]]
        bench.loop.pass_time(SECONDS_AFTER_FAILURE)
    assert lines == ["no room; trying again in 10 s"] * 4
    assert bench.told == [[HOME], []]
    bench.loop.pass_time(SECONDS_AFTER_FAILURE)
    assert bench.network.attempts == 6


def test_the_start_proceeds_once_the_name_servers_are_set(bench: Bench) -> None:
    bench.names.begin()
    bench.network.is_busy = True
    bench.find()
    assert bench.told == [[HOME]]
    bench.network.later[0]()
    assert bench.told == [[HOME], []]


def test_a_reload_that_succeeds_meanwhile_ends_the_attempts(bench: Bench) -> None:
    bench.names.begin()
    bench.network.fails = [DeviceError("no room")]
    bench.find()
    bench.names.apply([], lambda host, port: True)
    bench.loop.pass_time(SECONDS_AFTER_FAILURE)
    assert bench.network.attempts == 3


def test_what_can_never_be_set_ends_the_start_but_not_a_tunnel_that_is_set_up(bench: Bench) -> None:
    bench.names.begin()
    error = ConfigurationError("full")
    bench.network.fails = [error, error]
    bench.find()
    assert bench.told == [[HOME], error]
    bench.start.waits_for = None
    with logged() as lines:
        bench.names.found()
    assert (bench.told, lines) == ([[HOME], error], ["full"])
    bench.loop.pass_time(SECONDS_AFTER_FAILURE)
    assert bench.network.attempts == 3
