"""Cells of the view: texts of fixed widths, marks and sparklines, in ASCII where a terminal has no Unicode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rich.console import ConsoleOptions, OverflowMethod
from rich.text import Text

from vpntun.watch import short
from vpntun.watch.history import PeerView, Series

DIM, LOUD = "bright_black", "bold"
MARKS = {"connected": ("●", "*", "green"), "one-way": ("◐", "!", "yellow"), "connecting": ("◌", "?", "yellow")}
OTHER_MARK = ("○", "o", DIM)
"""For each state a mark, another one for terminals without Unicode, and the colour."""


def cell(content: str | Text, width: int, justify: Literal["left", "right"] = "left") -> Text:
    """Return the content in exactly this width."""
    text = content.copy() if isinstance(content, Text) else Text(content)
    text.overflow = "ellipsis"
    text.align(justify, max(0, width))
    return text


def line(cells: Iterable[Text]) -> Text:
    """Return a line of cells, with a blank between each two."""
    return whole(Text(" ").join(cells))


def whole(text: Text, overflow: OverflowMethod = "crop") -> Text:
    """Return the text as one line, whatever its length."""
    text.no_wrap, text.overflow = True, overflow
    return text


def colour_of(peer: PeerView) -> str:
    """Return the colour of a peer's state."""
    if peer.state == "connected" and peer.verified is False:
        return "yellow"
    return MARKS.get(peer.state, OTHER_MARK)[2]


def mark(peer: PeerView, options: ConsoleOptions) -> Text:
    """Return the mark of a peer's state, one column wide."""
    usual, plain, _ = MARKS.get(peer.state, OTHER_MARK)
    return Text(plain if options.ascii_only else usual, colour_of(peer))


def sparkline(series: Series, style: str, width: int, options: ConsoleOptions) -> Text:
    """Return a series of values as a line of bars."""
    return Text(short.sparkline(series, width, short.ASCII_BLOCKS if options.ascii_only else short.BLOCKS), style)
