"""Tunnels and peers in detail: a heading, and for each peer a line with its state and two lines with its numbers.

    tun3 10.0.0.1/24, port 55555, MTU 1420 ──────────────────────────────── up 2 d
    ● office  connected                                     UDP 203.0.113.2:55555
      down     234 Mbit/s ▁▃▅▇█▇▅▃▁▁▃▅▇█▇▅▃▁ round trip 12.3 ms ▁▁▂▁▁▃▁▁▁▁
      up      1.20 Mbit/s ▁▁▁▁▁▂▂▁▁▁▁▁▁▁▁▁▁▁ handshake     63 s loss 0.12%
      dropped 12 queue full (+3)

Further lines follow only where there is something to say (layout.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from vpntun.runtime.logform import escape
from vpntun.watch import short
from vpntun.watch.cells import DIM, LOUD, cell, colour_of, line, mark, sparkline, whole
from vpntun.watch.history import PeerView, TunnelView
from vpntun.watch.layout import Note, notes_of_peer, notes_of_tunnel

LABEL, RATE, OTHER_LABEL, NUMBER, LEAST_LOSS = 7, 11, 10, 7, 10
"""Columns of a peer's numbers: a label, a rate, another label, a number, and the loss or a sparkline."""
LEAST_SPARKLINE = 6


@dataclass
class Heading:
    """The lines above a tunnel's peers: its name, its settings, for how long it has been up, and its notes."""

    tunnel: TunnelView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw them, with a rule that fills the first line."""
        tunnel = self.tunnel
        port = f"port {tunnel.port}" if tunnel.port else None
        mtu = f"MTU {tunnel.mtu}" if tunnel.mtu else None
        kind = "TAP" if tunnel.is_tap else None
        facts = escape(", ".join(filter(None, (*tunnel.addresses, port, mtu, kind))))
        answers = tunnel.trouble is None and tunnel.uptime is not None
        end = f" up {short.age(tunnel.uptime)}" if answers else ""
        room = max(0, options.max_width - len(end))
        start = Text.assemble((escape(tunnel.interface), LOUD), " ", (facts and f"{facts} ", DIM))
        start.truncate(room, overflow="ellipsis")
        rule = ("-" if options.ascii_only else "─") * (room - start.cell_len)
        yield whole(Text.assemble(start, (rule, DIM), (end, DIM)))
        yield from _notes(notes_of_tunnel(tunnel))


@dataclass
class PeerInDetail:
    """The lines of one peer. The columns are the same for each peer."""

    peer: PeerView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw them, with sparklines if there is room."""
        yield self._head(options)
        yield from self._numbers(options)
        yield from _notes(notes_of_peer(self.peer))

    def _head(self, options: ConsoleOptions) -> Text:
        peer, room = self.peer, options.max_width - 3
        name = Text.assemble((escape(peer.label), LOUD), "  ", (_state(peer), colour_of(peer)))
        where = escape(" ".join(filter(None, (short.carrier(peer.carrier), peer.endpoint))))
        left = max(room - len(where), min(name.cell_len, room * 2 // 3))
        return line((mark(peer, options), cell(name, left), cell(where, room - left, "right")))

    def _numbers(self, options: ConsoleOptions) -> Iterable[Text]:
        """Yield the two lines of numbers."""
        peer = self.peer
        wide, narrow = _widths_of_sparklines(options.max_width)
        loss = Text.assemble(("loss ", DIM), short.share(peer.loss))
        trips = sparkline(peer.round_trips, "blue", narrow, options)
        for label, rate, series, style, other, number, last in (
            ("down", peer.down, peer.downs, "cyan", "round trip", short.milliseconds(peer.round_trip), trips),
            ("up", peer.up, peer.ups, "magenta", "handshake", short.age(peer.handshake_age), loss),
        ):
            cells = [Text(" "), cell(Text(label, DIM), LABEL), cell(short.rate(rate), RATE, "right")]
            if wide:
                cells.append(sparkline(series, style, wide, options))
            cells += [cell(Text(other, DIM), OTHER_LABEL), cell(number, NUMBER, "right")]
            if narrow:
                cells.append(cell(last, narrow))
            yield line(cells)


def _widths_of_sparklines(columns: int) -> tuple[int, int]:
    """Return the widths of the sparklines of the rates and of the round trip; 0: there is no room for it."""
    room = columns - 1 - sum(1 + width for width in (LABEL, RATE, OTHER_LABEL, NUMBER))
    if room < LEAST_LOSS + 1:
        return 0, 0
    if room < LEAST_LOSS + LEAST_SPARKLINE + 2:
        return 0, room - 1
    other = max(LEAST_LOSS, (room - 2) * 3 // 8)
    return room - 2 - other, other


def _state(peer: PeerView) -> str:
    if peer.verified is None or peer.state != "connected":
        return peer.state
    return f"{peer.state}, data {'verified' if peer.verified else 'not verified'}"


def _notes(notes: Iterable[Note]) -> Iterable[Text]:
    for note in notes:
        style = "red" if note.kind == "trouble" else "yellow" if note.is_news else ""
        label = "" if note.kind == "trouble" else f"{note.kind:{LABEL}} "
        yield whole(Text.assemble("  ", (label, DIM), (escape(note.text), style)), overflow="ellipsis")
