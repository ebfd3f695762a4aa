"""Choice of what fits a terminal: each peer in several lines, or all peers in one table, the busiest first.

1. If every peer of every tunnel fits in detail, each is shown so, in the order of the configuration.
2. Otherwise each peer has one row of a table, sorted by traffic. Peers that do not fit are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpntun.watch import short
from vpntun.watch.history import Drop, PeerView, TunnelView

LINES_OF_A_PEER = 3
LINES_OF_A_TABLE = 2
"""A table's heading, and the line that counts what is not shown."""

Row = tuple[TunnelView, PeerView]


@dataclass(frozen=True)
class Note:
    """Something that is said only where it applies. `kind`: a word that names it. `is_news`: it has just happened."""

    kind: str
    text: str
    is_news: bool = False


@dataclass(frozen=True)
class Layout:
    """What is shown: everything in detail, or the rows of a table, and how many peers are left out of it."""

    in_detail: bool
    rows: tuple[Row, ...]
    hidden: int


def lay_out(tunnels: Sequence[TunnelView], lines: int | None) -> Layout:
    """Decide what is shown in this many lines; None: there is no limit, and each peer has one row."""
    rows = [(tunnel, peer) for tunnel in tunnels for peer in tunnel.peers]
    if lines is None:
        return Layout(False, tuple(rows), 0)
    if sum(map(height_of, tunnels)) <= lines + 1:  # nothing follows the last blank line
        return Layout(True, tuple(rows), 0)
    ranked = sorted(rows, key=lambda row: -row[1].traffic)
    left = lines - LINES_OF_A_TABLE - sum(map(lines_of_heading, tunnels if len(tunnels) == 1 else in_trouble(tunnels)))
    shown = ranked if len(ranked) <= left + 1 else ranked[: max(0, left)]
    return Layout(False, tuple(shown), len(rows) - len(shown))


def height_of(tunnel: TunnelView) -> int:
    """Return the lines of a tunnel in detail, with a blank one after each peer."""
    if not tunnel.peers:
        return lines_of_heading(tunnel) + 1
    return lines_of_heading(tunnel) + sum(LINES_OF_A_PEER + len(notes_of_peer(peer)) + 1 for peer in tunnel.peers)


def lines_of_heading(tunnel: TunnelView) -> int:
    """Return the lines of a tunnel before its peers."""
    return 1 + len(notes_of_tunnel(tunnel))


def in_trouble(tunnels: Sequence[TunnelView]) -> list[TunnelView]:
    """Return the tunnels that need a line of their own even where all peers share a table."""
    return [tunnel for tunnel in tunnels if tunnel.trouble is not None or tunnel.starting is not None]


def notes_of_tunnel(tunnel: TunnelView) -> tuple[Note, ...]:
    """Return the notes about a tunnel as a whole."""
    return _notes(
        ("trouble", tunnel.trouble, True),
        ("start", tunnel.starting and f"waiting for {tunnel.starting}", True),
        ("forward", _forwards(tunnel), False),
        _dropped(tunnel.drops),
    )


def notes_of_peer(peer: PeerView) -> tuple[Note, ...]:
    """Return the notes about a peer."""
    queue = f"{short.count(peer.queued_packets, 'packet')}, {short.size(peer.queued_bytes)}"
    return _notes(
        ("waiting", peer.unresolved and f"for the name {peer.unresolved}", True),
        ("carrier", _carrier(peer), False),
        ("queue", queue if peer.queued_packets else None, False),
        _dropped(peer.drops),
    )


def _forwards(tunnel: TunnelView) -> str | None:
    """Write how many forwards there are, and how many connections they have; None without forwards."""
    if not tunnel.forwards:
        return None
    return f"{tunnel.forwards:,}, with {short.count(tunnel.open_connections, 'open connection')}"


def _carrier(peer: PeerView) -> str | None:
    """Write which carrier is used, since when and why; None if the tunnel does not tell."""
    if peer.carrier_up is None:
        return None
    text = (short.carrier(peer.carrier) if peer.carrier_up else "down") + short.lasting(peer.carrier_for)
    return text if peer.reason is None else f"{text} ({peer.reason}{short.lasting(peer.reason_for)})"


def _dropped(drops: Sequence[Drop]) -> tuple[str, str, bool]:
    return "dropped", ", ".join(map(short.drop, drops)), any(drop.new for drop in drops)


def _notes(*candidates: tuple[str, str | None, bool]) -> tuple[Note, ...]:
    return tuple(Note(kind, text, is_news) for kind, text, is_news in candidates if text)
