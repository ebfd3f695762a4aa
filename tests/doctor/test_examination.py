"""Examination: no check can fail, hang or disturb the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vpntun.doctor.examination import Check, examine
from vpntun.doctor.finding import Finding, ok
from vpntun.errors import DeviceError

FINE = Check("fine", lambda: [ok("fine", "it works")], about="tun3")


def raising(error: Exception) -> Check:
    def look() -> Iterator[Finding]:
        yield ok("first", "this is known")
        raise error

    return Check("second", look)


def test_checks_run_in_order_and_say_what_they_are_about() -> None:
    found = list(examine([Check("machine", lambda: [ok("a", "x"), ok("b", "y")]), FINE]))
    assert [(each.check, each.about) for each in found] == [("a", ""), ("b", ""), ("fine", "tun3")]


@pytest.mark.parametrize(
    ("error", "verdict", "text", "remedy"),
    [
        (DeviceError("there is no device: make one"), "failed", "there is no device", "make one"),
        (
            PermissionError(13, "Permission denied", "/etc/key"),
            "skipped",
            "not checked: this user has no right to read /etc/key",
            "run it as root",
        ),
        (OSError(5, "Input/output error"), "skipped", "not checked: Input/output error", ""),
        (KeyError("x"), "failed", "internal error, KeyError: 'x'", "please report it"),
    ],
)
def test_a_check_that_raises_is_a_finding_beside_those_it_has_made(
    error: Exception, verdict: str, text: str, remedy: str
) -> None:
    first, second, third = examine([raising(error), FINE])
    assert (first.text, third.text) == ("this is known", "it works")
    assert (second.check, second.verdict, second.text, second.remedy) == ("second", verdict, text, remedy)


def test_a_check_that_hangs_is_left_behind() -> None:
    released = threading.Event()

    def look() -> list[Finding]:
        released.wait(60)
        return []

    late, fine = examine([Check("late", look, "tun3", seconds=0.05), FINE])
    released.set()
    assert (late.verdict, late.about) == ("skipped", "tun3")
    assert late.text == "not checked: it has not ended within 0.05 s"
    assert fine.verdict == "ok"


def test_findings_are_yielded_while_later_checks_have_not_begun(tmp_path: Path) -> None:
    begun: list[str] = []

    def look() -> list[Finding]:
        begun.append("later")
        return []

    findings = examine([FINE, Check("later", look)])
    assert next(findings).check == "fine"
    assert begun == []
