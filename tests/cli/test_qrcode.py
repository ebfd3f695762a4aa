"""A drawn QR code is the one that segno makes of the text, dark on light, and fits the terminal or is refused."""

from __future__ import annotations

import re
import sys

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from vpntun.cli.qrcode import QUIET_ZONES, draw
from vpntun.errors import VpntunError

MODULES = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
ENDLESS = 1000


def modules_of(drawn: str) -> list[list[int]]:
    """Return the rows of modules that a terminal would show, 1 for a dark one."""
    rows: list[list[int]] = []
    for line in drawn.splitlines():
        shown = re.fullmatch(r"\x1b\[38;5;16;48;5;231m([ ▀▄█]+)\x1b\[0m", line)
        assert shown, line
        rows += [[MODULES[cell][half] for cell in shown[1]] for half in (0, 1)]
    return rows


def modules_by_segno(text: str, quiet: int) -> list[list[int]]:
    code = segno.make_qr(text, error="l", encoding="utf-8")
    return [list(row) for row in code.matrix_iter(border=quiet)]


@settings(max_examples=20)
@given(text=st.text(min_size=1, max_size=300), quiet=st.sampled_from(QUIET_ZONES))
def test_the_drawing_shows_the_code_of_the_text(text: str, quiet: int) -> None:
    expected = modules_by_segno(text, quiet)
    columns = len(expected[0]) if quiet != QUIET_ZONES[0] else ENDLESS
    shown = modules_of(draw(text, columns, ENDLESS))
    assert shown[: len(expected)] == expected
    assert not any(cell for row in shown[len(expected) :] for cell in row)


def test_the_border_is_narrower_where_the_code_does_not_fit_otherwise() -> None:
    width = len(modules_by_segno("x" * 300, 0)[0])
    for columns, quiet in ((ENDLESS, 4), (width + 8, 4), (width + 7, 2), (width + 4, 2)):
        assert modules_of(draw("x" * 300, columns, ENDLESS))[:width] == modules_by_segno("x" * 300, quiet)[:width]


def test_a_terminal_that_is_too_small_is_an_error_that_names_both_sizes() -> None:
    width = len(modules_by_segno("x" * 300, 2)[0])
    rows = (width + 1) // 2 + 1
    assert draw("x" * 300, width, rows)
    for columns, lines in ((width - 1, rows), (width, rows - 1)):
        with pytest.raises(VpntunError, match=f"takes {width} columns and {rows} rows, .* has {columns} and {lines}"):
            draw("x" * 300, columns, lines)


def test_a_text_that_no_code_can_hold_is_an_error() -> None:
    with pytest.raises(VpntunError, match="too long"):
        draw("x" * 3000, ENDLESS, ENDLESS)


def test_without_segno_an_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(VpntunError, match="pip install segno"):
        draw("x", ENDLESS, ENDLESS)
