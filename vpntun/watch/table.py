"""Table of peers with a row for each, and with the columns for which a terminal has room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vpntun.runtime.logform import escape
from vpntun.watch import short
from vpntun.watch.cells import DIM, LOUD, cell, colour_of, line, mark, sparkline
from vpntun.watch.history import PeerView, TunnelView
from vpntun.watch.layout import Row

LEAST_NAME = 14
"""Columns that the names of peers keep."""
HISTORIES = frozenset({"down history", "up history"})


@dataclass(frozen=True)
class Column:
    """A column: its place in the order in which columns are given room, and its width."""

    title: str
    rank: int
    width: int
    justify: Literal["left", "right"] = "left"


COLUMNS = (
    Column("tunnel", 0, 8),
    Column("state", 3, 10),
    Column("via", 7, 3),
    Column("endpoint", 9, 22),
    Column("down", 1, 11, "right"),
    Column("down history", 10, 12),
    Column("up", 2, 11, "right"),
    Column("up history", 11, 12),
    Column("rtt", 4, 7, "right"),
    Column("loss", 6, 5, "right"),
    Column("handshake", 8, 9, "right"),
    Column("queue", 12, 5, "right"),
    Column("dropped", 5, 9, "right"),
)


@dataclass
class PeerTable:
    """One row for each peer; `with_tunnel` for peers of several tunnels."""

    rows: Sequence[Row]
    with_tunnel: bool
    with_sparklines: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        columns = self._columns(options.max_width)
        name = options.max_width - 2 - sum(1 + column.width for column in columns)
        titles = [cell("" if each.title in HISTORIES else each.title, each.width, each.justify) for each in columns]
        head = line((Text(" "), cell("peer", name), *titles))
        head.style = DIM
        yield head
        for tunnel, peer in self.rows:
            contents = _contents(tunnel, peer, options)
            cells = [cell(contents[each.title], each.width, each.justify) for each in columns]
            yield line((mark(peer, options), cell(Text(escape(peer.label), LOUD), name), *cells))

    def _columns(self, width: int) -> list[Column]:
        """Return the columns that leave enough room for the names, in the order of COLUMNS."""
        unwanted = set() if self.with_tunnel else {"tunnel"}
        unwanted |= set() if self.with_sparklines else HISTORIES
        room, chosen = width - 2 - LEAST_NAME, set()
        for column in sorted(COLUMNS, key=lambda column: column.rank):
            if column.title not in unwanted and room > column.width:
                room -= column.width + 1
                chosen.add(column)
        return [column for column in COLUMNS if column in chosen]


def _contents(tunnel: TunnelView, peer: PeerView, options: ConsoleOptions) -> dict[str, str | Text]:
    """Return what each of COLUMNS shows of a peer."""
    state = "unverified" if peer.state == "connected" and peer.verified is False else peer.state
    dropped = "yellow" if any(drop.new for drop in peer.drops) else DIM if not peer.drops else ""
    return {
        "tunnel": escape(tunnel.interface),
        "state": Text(state, colour_of(peer)),
        "via": short.carrier(peer.carrier),
        "endpoint": escape(peer.endpoint or short.UNKNOWN),
        "down": short.rate(peer.down),
        "down history": sparkline(peer.downs, "cyan", 12, options),
        "up": short.rate(peer.up),
        "up history": sparkline(peer.ups, "magenta", 12, options),
        "rtt": short.milliseconds(peer.round_trip),
        "loss": short.share(peer.loss),
        "handshake": short.age(peer.handshake_age),
        "queue": Text(f"{peer.queued_packets:,}", "" if peer.queued_packets else DIM),
        "dropped": Text(short.sum_of_drops(peer.drops), dropped),
    }
