"""Option --watch of show: its number may be left out, and what it needs is said if it is missing."""

from __future__ import annotations

import sys

import pytest

from tests.cli.conftest import program
from vpntun.cli.control import show
from vpntun.errors import VpntunError
from vpntun.watch.option import start_watch


@pytest.mark.parametrize(
    ("arguments", "interface", "interval"),
    [
        ([], None, None),
        (["tun3"], "tun3", None),
        (["--watch"], None, 1.0),
        (["--watch", "tun3"], "tun3", 1.0),
        (["tun3", "--watch"], "tun3", 1.0),
        (["--watch", "0.5"], None, 0.5),
        (["--watch", "5", "tun3"], "tun3", 5.0),
        (["tun3", "--watch=5"], "tun3", 5.0),
        (["--watch", "--wait", "3", "tun3"], "tun3", 1.0),
        (["--watch", "--", "5"], "5", 1.0),
        (["--", "--watch"], "--watch", None),
    ],
)
def test_the_number_may_be_left_out_and_is_told_from_an_interface(
    arguments: list[str], interface: str | None, interval: float | None
) -> None:
    with show.make_context("show", list(arguments)) as context:
        assert (context.params["interface"], context.params["interval"]) == (interface, interval)


@pytest.mark.parametrize("number", ["0", "-1", "0.05", "100000", "nan", "inf"])
def test_a_number_that_is_no_interval_is_refused(number: str) -> None:
    said = program("show", f"--watch={number}")
    assert (said.status, said.out) == (2, "")
    assert "--watch" in said.err


@pytest.mark.parametrize("other", ["--json", "--check"])
def test_what_prints_once_cannot_be_watched(other: str) -> None:
    said = program("show", "tun3", "--watch", other)
    assert said.status == 2
    assert "--watch exclude each other" in said.err


def test_one_peer_alone_cannot_be_watched() -> None:
    said = program("show", "tun3", "office", "--watch")
    assert said.status == 2
    assert "--watch shows all peers: leave out PEER" in said.err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("vpntun.watch", "rich"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(VpntunError, match=r"pip install rich"):
        start_watch("vpntun-test", 1.0)
