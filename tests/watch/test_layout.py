"""What fits a terminal: details where there is room, else the busiest peers, and a count of the others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.sample_status import FORWARD
from tests.watch.samples import history, peer, seen, status, tunnel_of
from vpntun.watch.layout import Note, height_of, lay_out, notes_of_peer, notes_of_tunnel

PLAIN = 4
"""Lines of a peer in detail without notes, with the blank one after it."""


def test_everything_is_shown_in_detail_if_it_fits_to_the_line() -> None:
    tunnels = [tunnel_of(3), tunnel_of(0, "tun4")]
    lines = (1 + 3 * PLAIN) + (1 + 1) - 1  # nothing follows the last blank line
    assert sum(map(height_of, tunnels)) == lines + 1
    assert lay_out(tunnels, lines).in_detail
    assert not lay_out(tunnels, lines - 1).in_detail


def test_details_keep_the_order_of_the_configuration() -> None:
    layout = lay_out([tunnel_of(3)], 40)
    assert [peer.label for _, peer in layout.rows] == ["peer0", "peer1", "peer2"]
    assert layout.hidden == 0


def test_in_a_table_the_busiest_come_first_and_the_rest_is_counted() -> None:
    layout = lay_out([tunnel_of(30)], 10)
    assert not layout.in_detail
    assert [peer.label for _, peer in layout.rows] == [f"peer{number}" for number in range(29, 22, -1)]
    assert layout.hidden == 23
    assert 1 + 1 + len(layout.rows) + 1 == 10, "a heading, the titles, the rows, and the count"


def test_a_table_that_fits_exactly_needs_no_count() -> None:
    layout = lay_out([tunnel_of(8)], 10)
    assert (len(layout.rows), layout.hidden) == (8, 0)


def test_peers_of_several_tunnels_share_a_table() -> None:
    layout = lay_out([tunnel_of(5), tunnel_of(5, "tun4")], 10)
    assert [(tunnel.interface, peer.label) for tunnel, peer in layout.rows[:3]] == [
        ("tun3", "peer4"),
        ("tun4", "peer4"),
        ("tun3", "peer3"),
    ]


@pytest.mark.parametrize("lines", range(-2, 4))
def test_a_terminal_of_a_few_lines_shows_what_it_can(lines: int) -> None:
    layout = lay_out([tunnel_of(3)], lines)
    assert len(layout.rows) + layout.hidden == 3


def test_without_a_limit_every_peer_has_a_row() -> None:
    layout = lay_out([tunnel_of(200)], None)
    assert (len(layout.rows), layout.hidden, layout.in_detail) == (200, 0, False)


def test_notes_name_the_queue_the_drops_and_a_missing_name() -> None:
    fields: dict[str, Any] = {
        "unresolved": "nx.example",
        "carrier_up": None,
        "drops": {"queue full": 5},
    }
    one = seen(status(peer(drops={"queue full": 1})), status(peer(**fields), clock=101.0))
    assert notes_of_peer(one) == (
        Note("waiting", "for the name nx.example", True),
        Note("queue", "1 packet, 1.37 KiB"),
        Note("dropped", "5 queue full (+4)", True),
    )
    quiet: dict[str, Any] = {"queue": {"packets": 0, "bytes": 0}, "drops": {}, "carrier_up": None}
    assert notes_of_peer(seen(status(peer(**quiet)))) == ()


def test_a_note_counts_the_forwards_and_their_connections() -> None:
    forwards = [{**FORWARD, "connections": 2}, {**FORWARD, "connections": 3}]
    shown = history(status(forwards=forwards, drops={})).view(0.0)
    assert notes_of_tunnel(shown) == (Note("forward", "2, with 5 open connections"),)
    older = {name: value for name, value in status(drops={}).items() if name != "forwards"}
    assert notes_of_tunnel(history(older).view(0.0)) == ()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (("udp", True, 180, "it answered first", None), "UDP for 3 min (it answered first)"),
        (("tcp", True, 60, "no UDP answer", 7200), "TCP for 60 s (no UDP answer for 2 h)"),
        (("udp", False, 5, "this host cannot send there", None), "down for 5 s (this host cannot send there)"),
        ((None, False, None, None, None), "down"),
    ],
)
def test_a_note_says_which_carrier_is_used_since_when_and_why(fields: tuple[Any, ...], text: str) -> None:
    names = "carrier", "carrier_up", "carrier_up_for", "carrier_reason", "carrier_reason_for"
    one = seen(status(peer(**dict(zip(names, fields, strict=True)))))
    assert Note("carrier", text) in notes_of_peer(one)


def test_notes_of_a_tunnel_say_what_it_waits_for_and_why_it_does_not_answer() -> None:
    one = history(status(starting="PreUp", drops={}))
    assert notes_of_tunnel(one.view(0.0)) == (Note("start", "waiting for PreUp", True),)
    one.note_trouble("has ended")
    assert notes_of_tunnel(one.view(0.0))[0] == Note("trouble", "has ended", True)
