"""Hooks: their environment, who may have written them, and that none of them blocks the loop."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.machine import HandLoop, logged
from vpntun.errors import ConfigurationError, HookFailed
from vpntun.process.hooks import PATH, Command, HookEvent, Hooks, LinkEvent
from vpntun.runtime import child
from vpntun.runtime.loop import Loop

LINK_EVENTS: tuple[HookEvent, HookEvent] = ("link-up", "link-down")


class Bench:
    """Commands that write down their environment, and the hooks that run them."""

    def __init__(self, folder: Path, loop: HandLoop) -> None:
        self.folder, self.loop = folder, loop
        self.book = folder / "book"
        self.book.touch()
        self.made: list[Hooks] = []

    def script(self, text: str, name: str = "script") -> Command:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return Command.parse(shlex.quote(str(path)))

    def hooks(self, **commands: Command) -> Hooks:
        given: dict[HookEvent, Command] = {name.replace("_", "-"): each for name, each in commands.items()}  # type: ignore[misc]
        self.made.append(Hooks(given, self.loop, "tun3", 1400, ("10.0.0.1/24", "fd00::1/64"), os.geteuid()))
        return self.made[-1]

    def writer(self) -> Command:
        return self.script(f'echo "$VPNTUN_EVENT $VPNTUN_PEER" >> {self.book}', "writer")

    @property
    def lines(self) -> list[str]:
        return self.book.read_text().splitlines()


@pytest.fixture
def bench(tmp_path: Path, loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path, loop)
    yield made
    monkeypatch.setattr("vpntun.process.hooks.PATIENCE_AT_THE_END", 0.0)
    with logged():
        for hooks in made.made:
            hooks.down()


# The command line


def test_a_line_is_split_as_a_shell_splits_it() -> None:
    assert Command.parse("/bin/echo 'two words' $HOME").words == ("/bin/echo", "two words", "$HOME")


def test_a_bare_name_is_searched_in_the_systems_folders() -> None:
    [found] = Command.parse("sh").words
    assert found.startswith("/")
    assert found.endswith("/sh")


@pytest.mark.parametrize("line", ["", "  ", "'open", "no-such-command", "./script", "folder/script", "a\\"])
def test_a_line_that_is_not_a_command_is_a_configuration_error(line: str) -> None:
    with pytest.raises(ConfigurationError):
        Command.parse(line)


def test_a_command_that_others_can_write_is_refused_at_the_start(bench: Bench) -> None:
    command = bench.writer()
    bench.folder.chmod(0o777)
    for event in ("up", "down", *LINK_EVENTS):
        with pytest.raises(ConfigurationError, match="can be written by others"):
            bench.hooks(**{event.replace("-", "_"): command})


def test_a_command_that_cannot_be_run_is_refused_at_the_start(bench: Bench) -> None:
    command = bench.writer()
    Path(command.words[0]).chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod"):
        bench.hooks(up=command)


# up and down


def test_the_environment_is_clean_and_holds_the_facts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hidden")
    with logged() as lines:
        bench.hooks(up=Command.parse("env")).up()
    assert sorted(lines) == [
        f"up: PATH={PATH}",
        "up: VPNTUN_ADDRESSES=10.0.0.1/24 fd00::1/64",
        "up: VPNTUN_ENDPOINT=",
        "up: VPNTUN_EVENT=up",
        "up: VPNTUN_INTERFACE=tun3",
        "up: VPNTUN_MTU=1400",
        "up: VPNTUN_PEER=",
    ]


def test_up_and_down_are_waited_for(bench: Bench) -> None:
    slow = bench.script(f"sleep 0.2; echo $VPNTUN_EVENT >> {bench.book}")
    hooks = bench.hooks(up=slow, down=slow)
    hooks.up()
    assert bench.lines == ["up"]
    hooks.down()
    assert bench.lines == ["up", "down"]


def test_without_commands_nothing_is_run(bench: Bench) -> None:
    hooks = bench.hooks()
    hooks.up()
    hooks.link("link-up", b"office", "office")
    hooks.down()
    assert bench.lines == []


@pytest.mark.parametrize(
    ("text", "says"), [("exit 3", "failed with status 3"), ("kill -TERM $$", "was ended by signal 15")]
)
def test_a_failing_up_fails_the_start_and_a_failing_down_is_a_warning(bench: Bench, text: str, says: str) -> None:
    hooks = bench.hooks(up=bench.script(text), down=bench.script(text))
    with pytest.raises(HookFailed, match=rf"script \(--up\) {says}"):
        hooks.up()
    with logged() as lines:
        hooks.down()
    assert lines == [f"{bench.folder}/script (--down) {says}"]


def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "SECONDS_TO_RUN", 0.3)
    command = bench.script(f"sleep 60 & echo $! > {bench.book}; wait")
    loop = Loop()
    with closing(loop), pytest.raises(HookFailed, match="did not end within 0 s, and was killed"):
        Hooks({"up": command}, loop, "tun3", 1400, (), os.geteuid()).up()
    killed = int(bench.book.read_text())
    until = time.monotonic() + 5.0
    while not is_gone(killed) and time.monotonic() < until:
        time.sleep(0.05)
    assert is_gone(killed)


@pytest.mark.parametrize("event", ["up", "down"])
def test_the_loop_is_served_while_a_command_for_up_or_down_runs(bench: Bench, event: HookEvent) -> None:
    answer = bench.folder / "answer"
    hooks = bench.hooks(**{event: bench.script(f"until test -e {answer}; do sleep 0.02; done; echo ok > {bench.book}")})
    bench.loop.call_later(0.0, answer.touch)
    getattr(hooks, event)()
    assert bench.lines == ["ok"]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_command_that_others_can_write_by_now_is_not_run(bench: Bench) -> None:
    command = bench.writer()
    hooks = bench.hooks(up=command, link_up=command)
    Path(command.words[0]).chmod(0o777)
    with pytest.raises(HookFailed, match="can be written by others"):
        hooks.up()
    with logged() as lines:
        hooks.link("link-up", b"office", "office")
    assert len(lines) == 1
    assert "can be written by others" in lines[0]
    assert bench.lines == []


def test_a_script_without_an_interpreter_fails_as_any_other(bench: Bench) -> None:
    command = bench.script("")
    Path(command.words[0]).write_text("#!/no/such/interpreter\n")
    with pytest.raises(HookFailed, match="cannot be run"):
        bench.hooks(up=command).up()


def test_the_output_is_logged_line_by_line_up_to_a_limit(bench: Bench) -> None:
    text = "printf 'one\\ntwo \\033[31m\\377\\n'; yes | head -c 1000000; head -c 3000 /dev/zero | tr '\\0' x"
    with logged() as lines:
        bench.hooks(up=bench.script(text)).up()
    assert lines[:3] == ["up: one", "up: two \x1b[31m\ufffd", "up: y"]
    assert len(lines) == child.MOST_LINES + 1
    assert lines[-1] == "up: further output is not shown"


def test_a_long_line_is_cut_and_the_last_needs_no_newline(bench: Bench) -> None:
    with logged() as lines:
        bench.hooks(up=bench.script("head -c 3000 /dev/zero | tr '\\0' x; echo; printf end")).up()
    assert lines == ["up: " + "x" * child.LONGEST_LINE + "...", "up: end"]


def test_processes_that_a_command_leaves_behind_are_not_waited_for(bench: Bench) -> None:
    bench.hooks(up=bench.script(f"sleep 60 & echo $! > {bench.book}")).up()
    pid = int(bench.book.read_text())
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_no_descriptor_is_left_open(bench: Bench) -> None:
    hooks = bench.hooks(up=bench.script("echo up"), link_up=bench.writer())
    hooks.up()
    before = os.listdir("/proc/self/fd")
    for number in range(5):
        hooks.up()
        hooks.link("link-up", bytes([number]), str(number))
    bench.loop.until(lambda: len(bench.lines) == 5)
    bench.loop.settle()
    assert os.listdir("/proc/self/fd") == before


# Beside the loop


def test_a_link_command_does_not_block_the_loop(bench: Bench) -> None:
    gate = bench.folder / "gate"
    hooks = bench.hooks(link_up=bench.script(f"while [ ! -e {gate} ]; do sleep 0.01; done; echo up >> {bench.book}"))
    hooks.link("link-up", b"office", "office", "203.0.113.2:55555")
    turned: list[bool] = []
    bench.loop.call_later(0, lambda: turned.append(True))
    bench.loop.poll()
    assert turned == [True]
    assert bench.lines == []
    gate.touch()
    bench.loop.until(lambda: bench.lines == ["up"])


def test_a_link_command_gets_the_peer_and_its_endpoint(bench: Bench) -> None:
    hooks = bench.hooks(link_up=bench.script(f'echo "$VPNTUN_EVENT $VPNTUN_PEER $VPNTUN_ENDPOINT" >> {bench.book}'))
    hooks.link("link-up", b"office", "office", "203.0.113.2:55555")
    bench.loop.until(lambda: bench.lines)
    assert bench.lines == ["link-up office 203.0.113.2:55555"]


def test_a_renamed_peer_is_the_same_peer(bench: Bench) -> None:
    hooks = bench.hooks(link_up=bench.writer(), link_down=bench.writer())
    hooks.link("link-up", b"a", "old")
    hooks.link("link-down", b"a", "new")
    bench.loop.until(lambda: len(bench.lines) == 2)
    assert bench.lines == ["link-up old", "link-down new"]


Story = list[tuple[LinkEvent, str]]


@pytest.mark.parametrize(
    ("story", "told"),
    [
        ([("link-up", "a"), ("link-up", "b"), ("link-down", "a")], ["link-up a", "link-up b", "link-down a"]),
        ([("link-up", "a"), ("link-down", "a"), ("link-up", "a")], ["link-up a"]),
        ([("link-up", "a"), ("link-down", "a")] * 50, ["link-up a", "link-down a"]),
        ([("link-up", "a"), ("link-up", "a")], ["link-up a"]),
        ([("link-down", "a")], []),
        ([("link-up", "a"), ("link-up", "b"), ("link-down", "b")], ["link-up a"]),
    ],
)
def test_commands_run_one_at_a_time_and_only_for_changes(bench: Bench, story: Story, told: list[str]) -> None:
    hooks = bench.hooks(link_up=bench.writer(), link_down=bench.writer())
    for event, peer in story:
        hooks.link(event, peer.encode(), peer)
    bench.loop.until(lambda: len(bench.lines) >= len(told))
    bench.loop.settle()
    assert bench.lines == told


def test_an_event_without_a_command_is_skipped(bench: Bench) -> None:
    hooks = bench.hooks(link_down=bench.writer())
    hooks.link("link-up", b"a", "a")
    hooks.link("link-down", b"a", "a")
    bench.loop.until(lambda: bench.lines == ["link-down a"])


def test_a_failure_is_a_warning_and_the_next_command_runs(bench: Bench) -> None:
    hooks = bench.hooks(link_up=bench.script("exit 7"), link_down=bench.writer())
    with logged() as lines:
        hooks.link("link-up", b"a", "a")
        hooks.link("link-down", b"a", "a")
        bench.loop.until(lambda: bench.lines == ["link-down a"])
    assert lines == [f"{bench.folder}/script (--link-up) failed with status 7"]


def test_a_name_that_cannot_be_in_an_environment_is_a_warning(bench: Bench) -> None:
    hooks = bench.hooks(link_up=bench.writer())
    with logged() as lines:
        hooks.link("link-up", b"a\0b", "a\0b")
    assert len(lines) == 1
    assert "cannot be run" in lines[0]


def test_a_link_command_that_takes_too_long_is_killed(bench: Bench) -> None:
    hooks = bench.hooks(link_up=bench.script("exec sleep 60"), link_down=bench.writer())
    with logged() as lines:
        hooks.link("link-up", b"a", "a")
        hooks.link("link-down", b"a", "a")
        bench.loop.pass_time(29.9)
        bench.loop.settle()
        assert lines == []
        bench.loop.pass_time(0.2)
        bench.loop.until(lambda: bench.lines == ["link-down a"])
    assert lines == [f"{bench.folder}/script (--link-up) did not end within 30 s, and was killed"]


def test_at_the_end_the_running_command_is_waited_for_and_no_other_is_run(bench: Bench) -> None:
    slow = bench.script(f"sleep 0.3; echo $VPNTUN_EVENT >> {bench.book}")
    hooks = bench.hooks(link_up=slow, link_down=bench.writer(), down=bench.writer())
    hooks.link("link-up", b"a", "a")
    hooks.link("link-down", b"a", "a")
    hooks.down()
    bench.loop.settle()
    assert bench.lines == ["link-up", "down "]


def test_a_tunnel_that_is_told_to_end_does_not_wait_for_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpntun.process.hooks.PATIENCE_AT_THE_END", 0.1)
    hooks = bench.hooks(up=bench.script("exec sleep 60"), down=bench.writer())
    bench.loop.call_later(0.0, bench.loop.stop)
    hooks.up()
    hooks.down()
    assert bench.lines == ["down "]


def test_at_the_end_a_command_that_hangs_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpntun.process.hooks.PATIENCE_AT_THE_END", 0.1)
    hooks = bench.hooks(link_up=bench.script("exec sleep 60"), down=bench.writer())
    hooks.link("link-up", b"a", "a")
    hooks.down()
    assert bench.lines == ["down "]
