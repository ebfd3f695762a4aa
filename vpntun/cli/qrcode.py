"""Drawing of a QR code in a terminal: two modules in a character cell, black on white whatever the terminal's colours.

The package segno makes the code. It is an extra, since nothing else needs it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vpntun.errors import VpntunError

QUIET_ZONES = (4, 2)
"""Widths of the white border in modules: the standard's (ISO/IEC 18004), and a narrower one that readers accept."""

_BLACK_ON_WHITE, _AS_BEFORE = "\x1b[38;5;16;48;5;231m", "\x1b[0m"
_CELLS = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}


def draw(text: str, columns: int, rows: int) -> str:
    """Return the lines that show `text` as a QR code. Raises VpntunError if it does not fit, or segno is missing.

    `columns`, `rows`: the size of the terminal, in which one row is left to the prompt.
    """
    try:
        import segno  # only here, since it may be missing, and takes 30 ms to load
    except ImportError:
        raise VpntunError(
            "the Python package segno draws the QR code, and is not installed: install it (pip install segno), or let "
            "the configuration be written to a file: vpntun phone NAME > FILE"
        ) from None
    try:
        code = segno.make_qr(text, error="l", encoding="utf-8")
    except segno.DataOverflowError:
        raise VpntunError("the configuration is too long for a QR code: give fewer networks with --allowed") from None
    for quiet in QUIET_ZONES:
        lines = _lines([tuple(row) for row in code.matrix_iter(border=quiet)])
        width, height = code.symbol_size(border=quiet)[0], len(lines) + 1
        if width <= columns and height <= rows:
            return "".join(f"{_BLACK_ON_WHITE}{line}{_AS_BEFORE}\n" for line in lines)
    raise VpntunError(
        f"the QR code takes {width} columns and {height} rows, and this terminal has {columns} and {rows}: enlarge it, "
        "or make its characters smaller"
    )


def _lines(rows: Sequence[Sequence[int]]) -> list[str]:
    """Return the lines for rows of modules, 1 for a dark one: each line shows two rows."""
    light = [0] * len(rows[0])
    pairs = zip(rows[::2], [*rows[1::2], light], strict=False)
    return ["".join(_CELLS[pair] for pair in zip(upper, lower, strict=True)) for upper, lower in pairs]
