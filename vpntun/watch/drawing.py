"""Picture of all tunnels, in detail or as a table (layout.py), and the page that fills a terminal with it.

Names are escaped, whoever chose them: they cannot change the terminal. The package rich does the drawing
(https://github.com/Textualize/rich). It is an extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.segment import Segment
from rich.text import Text

from vpntun.watch import short
from vpntun.watch.cells import DIM, cell, line, whole
from vpntun.watch.details import Heading, PeerInDetail
from vpntun.watch.history import TunnelView
from vpntun.watch.layout import in_trouble, lay_out
from vpntun.watch.table import PeerTable


def picture(tunnels: Sequence[TunnelView], lines: int | None) -> RenderableType:
    """Draw all tunnels in at most this many lines; None: there is no limit, and no need for sparklines."""
    layout = lay_out(tunnels, lines)
    if layout.in_detail:
        return Group(*_in_detail(tunnels))
    alone = len(tunnels) == 1
    parts: list[RenderableType] = [Heading(tunnel) for tunnel in (tunnels if alone else in_trouble(tunnels))]
    if layout.rows:
        parts.append(PeerTable(layout.rows, with_tunnel=not alone, with_sparklines=lines is not None))
    if layout.hidden:
        which = "with less traffic " if layout.rows else ""
        parts.append(whole(Text(f"  {short.count(layout.hidden, 'more peer')} {which}not shown", DIM), "ellipsis"))
    return Group(*parts)


def _in_detail(tunnels: Sequence[TunnelView]) -> Iterator[RenderableType]:
    """Yield the parts of the picture, with a blank line after each peer."""
    for tunnel in tunnels:
        yield Heading(tunnel)
        for peer in tunnel.peers:
            yield PeerInDetail(peer)
            yield Text("")
        if not tunnel.peers:
            yield Text("")


@dataclass
class Page:
    """The picture of all tunnels, and a line at the bottom of the screen. `empty`: the text if there are none."""

    tunnels: Sequence[TunnelView]
    empty: str
    left: str
    right: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fill the screen, whatever its size."""
        width, height = options.size
        picked = picture(self.tunnels, height - 2) if self.tunnels else Text(self.empty, DIM)
        drawn = console.render_lines(picked, options.update(width=width, height=None))
        right = self.right if width > len(self.left) + len(self.right) else ""
        footer = line((cell(self.left, width - len(right) - 1), Text(right))) if right else cell(self.left, width)
        footer.style = DIM
        last = console.render_lines(footer, options.update(width=width, height=None))
        blank = [[Segment(" " * width)]] * height
        for number, each in enumerate([*[*drawn, *blank][: height - 1], last[0]]):
            if number:
                yield Segment.line()
            yield from each
