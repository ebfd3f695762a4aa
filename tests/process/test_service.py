"""Who is told how a run goes, and when: systemd, the caller in the foreground, and the operator's commands."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.machine import HandLoop, logged, needs_root
from vpntun.config.tunnel import HookLines, Tunnel
from vpntun.crypto.keys import KeyPair, format_key
from vpntun.errors import ConfigurationError, HookFailed, InterfaceInUse
from vpntun.process.background import Background
from vpntun.process.hooks import Command, HookEvent
from vpntun.process.service import PATIENCE, RunOptions, Service
from vpntun.runtime.log import LineLimit

PUBLIC = b"p" * 32
TUNNEL = Tunnel("tun3", KeyPair.generate(), (), None, None)


class Caller:
    """In the place of whoever typed the command with --daemon."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def device_is_up(self, loop: HandLoop) -> None:
        self.told.append("device")

    def link_is_up(self) -> None:
        self.told.append("link")


class Run:
    """A service, and all who are told of it."""

    def __init__(self, folder: Path, loop: HandLoop, stack: ExitStack) -> None:
        self.folder, self.loop, self.stack = folder, loop, stack
        self.caller = Caller()
        self.book = folder / "book"
        self.book.touch()
        self._systemd = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        self._systemd.bind(str(folder / "notify"))

    def service(
        self, *events: HookEvent, status: int = 0, user: str | None = None, pidfile: Path | None = None
    ) -> Service:
        """A service with a command for each of these events, which writes down what it is told."""
        script = self.folder / "script"
        script.write_text(f'#!/bin/sh\necho "$VPNTUN_EVENT $VPNTUN_PEER" >>{self.book}\nexit {status}\n')
        script.chmod(0o755)
        commands = {event: Command.parse(shlex.quote(str(script))) for event in events}
        options = RunOptions(None, commands, pidfile, cast(Background, self.caller))
        return Service(options, user, self.loop, self.stack)

    def link(self, service: Service, *, up: bool, name: str = "") -> None:
        status = "connected" if up else "waiting"
        service.link_changed(PUBLIC, name, "192.0.2.1:55555", status, LineLimit(9, self.loop.clock), up=up)

    def heard(self) -> list[str]:
        """What systemd was told since the last time."""
        heard = []
        while True:
            try:
                heard.append(self._systemd.recv(4096).decode())
            except BlockingIOError:
                return heard

    @property
    def lines(self) -> list[str]:
        return self.book.read_text().splitlines()


@pytest.fixture
def run(tmp_path: Path, loop: HandLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with ExitStack() as stack:
        yield Run(tmp_path, loop, stack)


# Readiness


def test_an_end_that_can_be_called_is_ready_once_all_is_set_up(run: Run) -> None:
    service = run.service()
    service.is_set_up("waiting", can_be_called=True)
    assert run.heard() == ["STATUS=waiting"]
    run.loop.poll()
    assert run.heard() == ["READY=1\nSTATUS=waiting"]
    assert run.caller.told == ["device"]


def test_an_end_that_only_calls_is_ready_with_its_first_link_and_says_so_once(run: Run) -> None:
    service = run.service()
    service.is_set_up("waiting", can_be_called=False)
    run.loop.poll()
    run.heard()
    for up in (True, False, True):
        run.link(service, up=up)
    run.loop.pass_time(PATIENCE)
    heard = run.heard()
    assert [each for each in heard if "READY" in each] == ["READY=1\nSTATUS=connected"]
    assert run.caller.told == ["device", "link", "link"]


def test_without_a_link_it_is_ready_when_patience_is_over_and_the_caller_is_told_of_none(run: Run) -> None:
    service = run.service()
    service.is_set_up("waiting", can_be_called=False)
    run.loop.pass_time(PATIENCE - 0.1)
    assert not any("READY" in each for each in run.heard())
    run.loop.pass_time(0.1)
    assert run.heard() == ["READY=1\nSTATUS=waiting"]
    assert run.caller.told == ["device"]


def test_a_link_that_is_up_before_the_set_up_ends_counts_when_it_does(run: Run) -> None:
    service = run.service()
    run.link(service, up=True)
    assert run.caller.told == []
    assert not any("READY" in each for each in run.heard())
    service.is_set_up("connected", can_be_called=False)
    assert run.caller.told == ["device", "link"]
    assert "READY=1\nSTATUS=connected" in run.heard()


def test_a_set_up_that_waits_keeps_neither_systemd_nor_the_caller_for_longer_than_patience(run: Run) -> None:
    service = run.service()
    service.waits("waiting for the name a")
    run.loop.pass_time(PATIENCE - 1.0)
    assert run.heard() == ["STATUS=waiting for the name a"]
    assert run.caller.told == []
    run.loop.pass_time(1.0)
    assert run.heard() == ["READY=1\nSTATUS=waiting for the name a"]
    assert run.caller.told == ["device"]
    service.waits_no_more()
    service.is_set_up("connected", can_be_called=True)
    run.loop.poll()
    assert run.heard() == ["STATUS=connected"]


def test_a_set_up_that_goes_on_in_time_is_ready_when_it_is_complete(run: Run) -> None:
    service = run.service()
    service.waits("waiting for the name a")
    service.waits_no_more()
    run.link(service, up=True)
    run.loop.pass_time(PATIENCE)
    assert not any("READY" in each for each in run.heard())
    assert run.caller.told == []
    service.waits("waiting for the name b")
    assert "READY=1\nSTATUS=waiting for the name b" in run.heard()
    assert run.caller.told == ["device"]


def test_systemd_is_not_told_of_a_reload_before_it_was_told_of_the_start(run: Run) -> None:
    service = run.service()
    service.reloading()
    service.reloaded("2 peers")
    assert run.heard() == []
    service.is_set_up("1 peer", can_be_called=True)
    run.loop.poll()
    run.heard()
    service.reloading()
    service.reloaded("2 peers")
    service.ends()
    reloading, ready, stopping = run.heard()
    assert reloading.startswith("RELOADING=1\n")
    assert (ready, stopping) == ("READY=1\nSTATUS=2 peers", "STOPPING=1")


def test_changes_of_states_are_told_at_most_once_a_second_and_only_if_the_line_changes(run: Run) -> None:
    service = run.service()
    service.is_set_up("a", can_be_called=True)
    run.loop.poll()
    run.heard()
    line = "b"
    for _ in range(100):
        service.states_changed(lambda: line)
    run.loop.poll()
    assert run.heard() == ["STATUS=b"]
    service.states_changed(lambda: line)
    line = "c"
    run.loop.pass_time(0.9)
    assert run.heard() == []
    run.loop.pass_time(0.1)
    assert run.heard() == ["STATUS=c"]
    service.states_changed(lambda: line)
    run.loop.pass_time(5.0)
    assert run.heard() == []


def test_without_systemd_no_status_line_is_written_for_changes_of_states(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET")
    service = run.service()
    service.states_changed(lambda: pytest.fail("it was asked for"))
    run.loop.pass_time(5.0)
    assert run.heard() == []


# Commands


def test_the_commands_of_the_device_run_at_its_start_and_at_the_end(run: Run) -> None:
    service = run.service("up", "down")
    service.device_is_up("tun3", 1400, ("10.0.0.1/24",))
    assert run.lines == ["up "]
    run.stack.close()
    assert run.lines == ["up ", "down "]


def test_an_up_that_fails_ends_the_start_and_no_down_follows(run: Run) -> None:
    service = run.service("up", "down", status=3)
    with pytest.raises(HookFailed):
        service.device_is_up("tun3", 1400, ())
    run.stack.close()
    assert run.lines == ["up "]


@pytest.mark.parametrize(("name", "called"), [("office", "office"), ("", format_key(PUBLIC))])
def test_each_link_is_told_with_its_peers_name_or_key_and_logged(run: Run, name: str, called: str) -> None:
    service = run.service("link-up", "link-down")
    service.device_is_up("tun3", 1400, ())
    with logged() as lines:
        for up in (True, False):
            run.link(service, up=up, name=name)
        run.loop.until(lambda: len(run.lines) == 2)
    assert run.lines == [f"link-up {called}", f"link-down {called}"]
    assert lines == [f"{event}: {name or '192.0.2.1:55555'}" for event in ("link-up", "link-down")]


# Whom it becomes, and what it holds


def test_without_a_user_it_stays_who_it_is(run: Run) -> None:
    service = run.service()
    assert not service.gives_up_privileges
    service.give_up_privileges(keep_net_admin=False)
    assert os.geteuid() == os.getuid()


@needs_root
def test_the_configurations_user_is_become_unless_the_command_line_has_another(run: Run) -> None:
    assert run.service(user="nobody").gives_up_privileges
    with pytest.raises(ConfigurationError, match="nosuch"):
        Service(RunOptions(user="nosuch"), "nobody", run.loop, run.stack)


@needs_root
def test_a_user_is_refused_name_servers_and_warned_of_hooks_that_need_root(run: Run) -> None:
    with pytest.raises(ConfigurationError, match="leave out either the user or DNS"):
        run.service(user="nobody").check(replace(TUNNEL, dns=("10.0.0.1",)))
    for hooks in (HookLines(pre_down=("true",)), HookLines(post_down=("true",))):
        with logged() as lines:
            run.service(user="nobody").check(replace(TUNNEL, hooks=hooks))
            run.service().check(replace(TUNNEL, hooks=hooks, dns=("10.0.0.1",)))
        assert lines == ["PreDown and PostDown will run without root's privileges"]


def test_a_tunnel_that_wg_has_to_give_the_private_key_is_refused_without_a_socket_for_wg(run: Run) -> None:
    keyless = replace(TUNNEL, identity=None)
    run.service().check(keyless)
    without = Service(RunOptions(uapi=False), None, run.loop, run.stack)
    without.check(TUNNEL)
    with pytest.raises(ConfigurationError, match="or leave out --no-uapi"):
        without.check(keyless)


def test_the_pid_file_is_held_until_the_end_and_refused_to_a_second(run: Run, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    run.service(pidfile=pidfile)
    assert pidfile.read_text() == f"{os.getpid()}\n"
    with pytest.raises(InterfaceInUse):
        run.service(pidfile=pidfile)
    run.stack.close()
    assert not pidfile.exists()
