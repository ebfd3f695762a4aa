"""The start: what it waits for in each phase, and when PostUp runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from tests.machine import logged
from vpntun.config.peer import PeerSettings
from vpntun.config.tunnel import HookLines
from vpntun.errors import HookFailed
from vpntun.process.service import RunOptions, Service
from vpntun.process.start import Start
from vpntun.runtime.loop import Loop
from vpntun.runtime.resolver import Found, Lookups

HOME = PeerSettings(b"home", (), host="home.example", port=1)
OFFICE = PeerSettings(b"office", (), host="office.example", port=1)


class Bench:
    """A start whose hook lines write to a file. `ends`: what it has reported."""

    def __init__(self, folder: Path, loop: Loop, stack: ExitStack) -> None:
        self.loop, self.stack = loop, stack
        self.ends: list[Exception | None] = []
        self._book = folder / "book"
        self._book.touch()

    def start(self, pre_up: str = "true", post_up: str = "true") -> Start:
        lines = (f"echo PreUp >>{self._book}; {pre_up}", f"echo PostUp >>{self._book}; {post_up}")
        hooks = HookLines(pre_up=lines[:1], post_up=lines[1:])
        return Start(hooks, Service(RunOptions(), None, self.loop, self.stack), self.loop, self.ends.append)

    def ended(self) -> None:
        self.loop.serve(lambda: bool(self.ends), 5.0)
        assert len(self.ends) == 1

    def waits_for(self, start: Start) -> str | None:
        """What it waits for now; mypy takes the attribute to be what it was compared with before."""
        return start.waits_for

    @property
    def book(self) -> list[str]:
        return self._book.read_text().split()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    loop = Loop()
    with ExitStack() as stack:
        yield Bench(tmp_path, loop, stack)
    loop.close()


def test_without_names_the_lines_run_and_then_nothing_is_waited_for(bench: Bench) -> None:
    start = bench.start()
    seen: list[str | None] = []
    bench.loop.call_later(0.0, lambda: seen.append(start.waits_for))
    assert start.run_pre_up()
    start.proceed([])
    assert start.waits_for == "PostUp"
    bench.ended()
    assert seen == ["PreUp"]
    assert bench.book == ["PreUp", "PostUp"]
    assert bench.waits_for(start) is None


def test_lines_that_ran_before_the_loop_do_not_run_again(bench: Bench) -> None:
    start = bench.start()
    start.run_post_up()
    start.proceed([])
    bench.ended()
    assert bench.book == ["PostUp"]


def test_post_up_waits_for_names_and_runs_once(bench: Bench) -> None:
    start = bench.start()
    with logged() as lines:
        start.proceed([HOME, OFFICE])
        assert start.waits_for == "the names home.example, office.example"
        for _ in range(2):
            start.proceed([HOME])
        assert start.waits_for == "the name home.example"
    assert [line for line in lines if "home.example" in line] == [
        "waiting for the names home.example, office.example: until then routes and name servers stay as they are",
        "waiting for the name home.example: until then routes and name servers stay as they are",
    ]
    assert bench.book == []
    start.proceed([])
    start.proceed([])
    start.proceed([HOME])
    bench.ended()
    assert bench.ends == [None]
    assert bench.book == ["PostUp"]
    assert bench.waits_for(start) is None


def test_a_line_that_fails_ends_the_start(bench: Bench) -> None:
    start = bench.start(pre_up="exit 1", post_up="exit 1")
    with pytest.raises(HookFailed):
        start.run_pre_up()
    start.proceed([])
    bench.ended()
    assert isinstance(bench.ends[0], HookFailed)
    assert start.waits_for is not None


def test_a_stopped_loop_ends_the_wait_for_pre_up_and_for_names(bench: Bench) -> None:
    start = bench.start(pre_up="sleep 0.2")
    bench.loop.call_later(0.1, bench.loop.stop)
    assert not start.run_pre_up()
    answers = Event()

    def find(host: str, port: int, flags: int) -> Found:
        answers.wait(5.0)
        return []

    lookups = Lookups(bench.loop, find=find)
    bench.stack.callback(lookups.close)
    bench.stack.callback(answers.set)
    began = monotonic()
    start.find_names(lookups, [HOME])
    assert monotonic() - began < 2.0
    assert not bench.loop.running


def test_names_that_are_not_found_are_logged(bench: Bench) -> None:
    def find(host: str, port: int, flags: int) -> Found:
        if host == "home.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, ("192.0.2.7", port))]

    start, lookups = bench.start(), Lookups(bench.loop, find=find)
    bench.stack.callback(lookups.close)
    with logged() as lines:
        start.find_names(lookups, [HOME, OFFICE, PeerSettings(b"caller", ())])
    assert lines == ["home.example does not resolve ([Errno -2] no such name); trying again"]
    assert start.waits_for == "the set-up"
    assert lookups.has_found("office.example", 1)
