"""An interface's name is a command for wg-quick alone; tests/netns/test_wg_quick.py runs its tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.conftest import Run
from tests.documents import blocks
from vpntun.cli.wg_quick import VARIABLE
from vpntun.process.background import Background
from vpntun.runtime.log import log

BACKGROUND = object()


@pytest.fixture(autouse=True)
def _by_wg_quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "/usr/bin/vpntun")
    monkeypatch.setattr(Background, "enter", lambda: BACKGROUND)
    yield
    for handler in log.handlers:  # syslog's is a socket
        handler.close()


def test_a_tunnel_without_settings_is_run_in_the_background(run: Run, ran: list[Any]) -> None:
    assert run("wg77").status == 0
    tunnel, run_options = ran
    assert (tunnel.interface, tunnel.identity, tunnel.peers, tunnel.is_set_by_wg) == ("wg77", None, (), True)
    assert (tunnel.port, tunnel.listen_on, tunnel.addresses) == (None, None, ())
    assert (run_options.background, run_options.uapi) == (BACKGROUND, True)


def test_a_command_wins_over_an_interface_of_its_name(run: Run, ran: list[Any]) -> None:
    said = run("genkey")
    assert (said.status, len(said.out)) == (0, 45)
    assert ran == []


@pytest.mark.parametrize("value", [None, ""])
def test_without_wg_quicks_variable_the_name_is_an_unknown_command(
    run: Run, ran: list[Any], monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(VARIABLE)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    said = run("wg77")
    assert said.status == 2
    assert "No such command 'wg77'" in said.err
    assert ran == []


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["a/name"], 3, "cannot be an interface's name"),
        (["wg77", "wg78"], 2, "unexpected extra argument"),
        (["-v", "wg77"], 2, "cannot be combined with 'wg77'"),
        (["--unknown"], 2, "No such option"),
    ],
)
def test_other_words_are_refused(run: Run, ran: list[Any], words: list[str], status: int, says: str) -> None:
    said = run(*words)
    assert said.status == status
    assert says in said.err
    assert ran == []


def test_the_guides_drop_in_sets_the_variable(run: Run, ran: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    [drop_in] = blocks("drop-in-for-wg-quick")
    [variable, value] = drop_in.removeprefix("[Service]\nEnvironment=").split("=")
    assert variable == VARIABLE
    monkeypatch.setenv(variable, value)
    assert run("wg77").status == 0
    assert ran


def test_the_help_does_not_list_it(run: Run) -> None:
    assert "wg77" not in run("--help").out
