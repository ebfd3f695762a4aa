"""The log: a line stays a line whatever a peer says, strangers cannot flood it, and -v says more."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from tests.host.machine import Clock, logged
from vpntun.host.log import NOTICE, Limited, log, notice, open_log


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    former = log.handlers, log.level, log.propagate
    yield
    log.handlers, log.propagate = former[0], former[2]
    log.setLevel(former[1])


Captured = pytest.CaptureFixture[str]


def test_a_line_names_the_interface(capsys: Captured) -> None:
    open_log("tun3", 0)
    notice("waiting on port %d", 55555)
    assert capsys.readouterr() == ("", "vpntun: tun3: waiting on port 55555\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("back\rover", r"back\rover"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("bell\x07\x00", r"bell\x07\x00"),
        ("right\u202eleft", r"right\u202eleft"),
        ("line\u2028end", r"line\u2028end"),
        ("broken \udc80", r"broken \udc80"),
        ("plain é 漢", "plain é 漢"),
        ("100 % of %s", "100 % of %s"),
    ],
)
def test_control_characters_are_escaped(capsys: Captured, said: str, shown: str) -> None:
    open_log("tun3", 0)
    log.warning("peer says %s", said)
    assert capsys.readouterr().err == f"vpntun: tun3: peer says {shown}\n"


@pytest.mark.parametrize("name", ["tun%d", "%(message)s", "%(nothing)s", "%", "a\x1b[2Jb"])
def test_any_interface_name_makes_a_good_line(capsys: Captured, name: str) -> None:
    open_log(name, 0)
    notice("up")
    assert capsys.readouterr().err == f"vpntun: {name}: up\n".replace("\x1b", r"\x1b")


def test_an_exceptions_lines_stay_one_line(capsys: Captured) -> None:
    open_log("tun3", 0)
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        log.exception("failed")
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("verbosity", "shown"),
    [
        (0, ["notice", "warning"]),
        (1, ["notice", "warning", "info"]),
        (2, ["notice", "warning", "info", "debug"]),
        (7, ["notice", "warning", "info", "debug"]),
    ],
)
def test_each_v_says_more(capsys: Captured, verbosity: int, shown: list[str]) -> None:
    open_log("tun3", verbosity)
    notice("notice")
    log.warning("warning")
    log.info("info")
    log.debug("debug")
    assert capsys.readouterr().err.split("\n") == [*(f"vpntun: tun3: {each}" for each in shown), ""]


def test_opening_the_log_again_does_not_double_the_lines(capsys: Captured) -> None:
    open_log("tun3", 0)
    open_log("tun4", 0)
    notice("once")
    assert capsys.readouterr().err == "vpntun: tun4: once\n"


def test_a_limited_line_comes_once_in_ten_seconds_and_says_how_many_were_held_back() -> None:
    clock = Clock()
    tell = Limited(NOTICE, "refused %s", clock)
    with logged() as lines:
        for _ in range(1000):
            tell("somebody")
        clock.now += 9.9
        tell("somebody")
        clock.now += 0.2
        tell("somebody else")
        clock.now += 20
        tell("a third")
    assert lines == [
        "refused somebody",
        "refused somebody else (1000 more since the last such line)",
        "refused a third",
    ]


def test_each_kind_of_line_has_a_limit_of_its_own() -> None:
    clock = Clock()
    one, other = Limited(logging.INFO, "one", clock), Limited(logging.INFO, "other", clock)
    with logged() as lines:
        one()
        other()
        one()
    assert lines == ["one", "other"]


def test_a_percent_sign_in_an_argument_is_only_text() -> None:
    with logged() as lines:
        Limited(NOTICE, "%s", time.monotonic)("50 %d")
    assert lines == ["50 %d"]
