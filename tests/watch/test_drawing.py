"""The picture as text: aligned, never wider or higher than the terminal, and harmless whatever the names are."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from tests.watch.samples import history, peer, status, tunnel_of
from vpntun.watch.drawing import Page, picture
from vpntun.watch.history import TunnelView

RATES = [0, 4_000_000, 12_000_000, 20_000_000, 28_000_000, 32_000_000]
DETAILS = """\
tun3 10.0.0.1/24, port 55555, MTU 1500 ──────────────────────────────── up 105 s
  dropped 2 unknown peer
● office  connected, data verified                         UDP 203.0.113.2:55555
  down    32.0 Mbit/s                    ▄▇▇▇▄ round trip 12.3 ms         ▇▇▇▇▇▇
  up          0 bit/s                    ▁▁▁▁▁ handshake     63 s loss 0.12%
  carrier UDP for 2 h (it answered first)
  queue   1 packet, 1.37 KiB
  dropped 12 queue full, 3 source not allowed
"""


def drawn(picture: RenderableType, width: int, height: int = 24, encoding: str = "utf-8") -> list[str]:
    """Return the lines of a picture, without colours."""
    raw = io.BytesIO()
    output = io.TextIOWrapper(raw, encoding, errors="replace")
    Console(file=output, width=width, height=height, force_terminal=False, markup=False, emoji=False).print(picture)
    output.flush()
    return raw.getvalue().decode(encoding).splitlines()


def page(tunnels: Sequence[TunnelView], width: int, height: int, encoding: str = "utf-8") -> list[str]:
    return drawn(Page(tunnels, "no tunnel", "q quit", "every 1 s"), width, height, encoding)


def busy() -> TunnelView:
    """Return a tunnel with a peer that receives 32 Mbit/s at most."""
    return history(*(status(peer(received_bytes=count), clock=100.0 + at) for at, count in enumerate(RATES))).view(5.0)


def test_a_peer_in_detail() -> None:
    lines = [line.rstrip() for line in drawn(picture([busy()], 20), 80)]
    assert "\n".join(lines).rstrip() == DETAILS.rstrip()


def test_a_tap_is_named_in_the_heading() -> None:
    lines = drawn(picture([history(status(peer(), device="tap")).view(0.0)], 20), 80)
    assert lines[0].startswith("tun3 10.0.0.1/24, port 55555, MTU 1500, TAP ─")


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (40, "peer down up"),
        (60, "peer state down up rtt"),
        (80, "peer state via down up rtt loss dropped"),
        (100, "peer state via down up rtt loss handshake queue dropped"),
        (130, "peer state via endpoint down up rtt loss handshake dropped"),
        (160, "peer state via endpoint down up rtt loss handshake queue dropped"),
    ],
)
def test_a_table_has_the_columns_for_which_there_is_room(width: int, titles: str) -> None:
    _, head, *_ = drawn(picture([tunnel_of(30)], 10), width)
    assert head.split() == titles.split()


def test_columns_of_a_table_are_aligned_and_no_line_is_wider_than_the_terminal() -> None:
    lines = page([tunnel_of(30), tunnel_of(2, "tun4")], 120, 20)
    assert {cell_len(line) for line in lines} == {120}
    column = lines[0].index("state")
    assert all(line[column:].startswith("connected") for line in lines[1:17])
    assert lines[17].strip() == "16 more peers with less traffic not shown"


def test_the_tunnel_is_named_where_there_are_several() -> None:
    assert "tunnel" in page([tunnel_of(30), tunnel_of(2, "tun4")], 80, 12)[0]
    assert "tunnel" not in page([tunnel_of(30)], 80, 12)[1]


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 40), st.sampled_from(["utf-8", "ascii"]))
def test_a_page_fills_a_terminal_of_any_size_exactly(width: int, height: int, peers: int, encoding: str) -> None:
    lines = page([busy(), tunnel_of(peers, "tun4")], width, height, encoding)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


@given(st.text(max_size=40), st.sampled_from([24, 8]))
def test_a_name_cannot_change_the_terminal(name: str, height: int) -> None:
    one = history(status(peer(name=name, endpoint=name, drops={}), interface=name)).view(0.0)
    for line in page([one], 80, height):
        assert line.isprintable()
        assert cell_len(line) <= 80


@given(st.integers(1, 200))
def test_text_without_a_limit_names_every_peer(width: int) -> None:
    assert len(drawn(picture([tunnel_of(50)], None), width)) == 1 + 1 + 50


def test_a_terminal_without_unicode_gets_other_marks_and_bars() -> None:
    lines = page([busy()], 80, 24, "ascii")
    assert lines[2].startswith("* office")
    assert "~###~" in lines[3]
    assert "?" not in "".join(lines)


def test_the_trouble_with_a_tunnel_is_shown_and_its_peers_are_in_an_unknown_state() -> None:
    one = history(status())
    one.note_trouble("has ended; waiting for it to come back")
    lines = page([one.view(0.0)], 80, 24)
    assert "up " not in lines[0]
    assert lines[1].rstrip() == "  has ended; waiting for it to come back"
    assert lines[3].startswith("○ office  unknown ")
    many = page([one.view(0.0), tunnel_of(30, "tun4")], 80, 10)
    assert many[1].rstrip() == "  has ended; waiting for it to come back"


@pytest.mark.parametrize(
    ("verified", "said"), [(True, "connected, data verified"), (False, "connected, data not verified")]
)
def test_a_peer_whose_data_was_verified_is_told_from_one_that_is_only_connected(verified: bool, said: str) -> None:
    lines = page([tunnel_of(1, data_verified=verified)], 80, 24)
    assert lines[1].startswith(f"● peer0  {said}  ")


def test_without_tunnels_the_page_says_so() -> None:
    lines = page([], 40, 5)
    assert lines[0].rstrip() == "no tunnel"
    assert lines[-1].startswith("q quit ")
