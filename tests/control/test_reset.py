"""`vpntun reset`: finding the peer, and accepting its next handshake with any timestamp."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.datapath.ends import ALICE, BOB, CAROL
from tests.datapath.receiving.test_inbound import Town, initiation
from tests.machine import HandLoop, logged
from vpntun.config.peer import PeerSettings
from vpntun.control.reset import MOST_LISTED, find_peer, forget_timestamp
from vpntun.crypto.keys import format_key, shortened
from vpntun.errors import AmbiguousPeer, NoSuchPeer

OFFICE = PeerSettings(ALICE.public, (), name="office")
UNNAMED = PeerSettings(BOB.public, ())
PEERS = [OFFICE, UNNAMED]


@pytest.mark.parametrize(
    ("called", "found"),
    [
        ("office", OFFICE),
        (format_key(ALICE.public), OFFICE),
        (format_key(BOB.public), UNNAMED),
        (format_key(BOB.public)[:8], UNNAMED),
        (f"peer {shortened(format_key(BOB.public))}", UNNAMED),
    ],
)
def test_a_peer_is_found_by_its_name_its_key_or_the_beginning_of_its_key(called: str, found: PeerSettings) -> None:
    assert find_peer(PEERS, called) is found


def test_the_only_peer_needs_no_name() -> None:
    assert find_peer([UNNAMED], None) is UNNAMED


def test_a_name_counts_more_than_the_beginning_of_another_peers_key() -> None:
    named = PeerSettings(ALICE.public, (), name=format_key(BOB.public)[:8])
    assert find_peer([UNNAMED, named], named.name) is named


@pytest.mark.parametrize("called", ["offic", "nobody", "", "peer ", "peer office", format_key(CAROL.public)])
def test_an_unknown_peer_is_refused_with_a_list_of_the_peers(called: str) -> None:
    with pytest.raises(NoSuchPeer) as caught:
        find_peer(PEERS, called)
    assert str(caught.value).endswith(f": office ({format_key(ALICE.public)}), {format_key(BOB.public)}")


def test_a_tunnel_without_peers_says_so() -> None:
    with pytest.raises(NoSuchPeer, match="has no peers"):
        find_peer([], None)


def test_several_matching_peers_are_listed_with_their_keys() -> None:
    other = PeerSettings(CAROL.public, (), name="office")
    with pytest.raises(AmbiguousPeer) as caught:
        find_peer([OFFICE, UNNAMED, other], "office")
    assert format_key(ALICE.public) in str(caught.value)
    assert format_key(CAROL.public) in str(caught.value)
    assert format_key(BOB.public) not in str(caught.value)
    with pytest.raises(AmbiguousPeer):
        find_peer(PEERS, None)


def test_a_beginning_that_two_keys_share_is_refused() -> None:
    twins = [PeerSettings(bytes([0, 0, number]) + bytes(29), ()) for number in (1, 2)]
    with pytest.raises(AmbiguousPeer):
        find_peer(twins, "AA")
    assert find_peer(twins, "AAAC") is twins[1]


def test_ten_of_a_thousand_peers_are_listed() -> None:
    many = [PeerSettings(number.to_bytes(32, "little"), (), name=f"n{number}") for number in range(1000)]
    with pytest.raises(NoSuchPeer, match=f"and {1000 - MOST_LISTED} more$"):
        find_peer(many, "nobody")


# What it does


@pytest.fixture
def town(loop: HandLoop) -> Iterator[Town]:
    made = Town(loop)
    made.meet()
    yield made
    made.close()


def test_a_peer_that_is_refused_for_an_old_timestamp_is_answered_after_a_reset(town: Town) -> None:
    day = 86_400
    town.loop.pass_time(1.0)
    town.bob.take(initiation(stamp=day), town.wire.to_left)
    assert len(town.wire.to_left.take()) == 1
    town.loop.pass_time(10.0)
    assert town.drop_of(initiation(stamp=50)) == "old timestamp"
    settings = PeerSettings(ALICE.public, (), name="alice")
    with logged() as lines:
        key = forget_timestamp([settings], lambda public: town.bob.links[town.bob.node.peers[public]], "alice")
    assert key == format_key(ALICE.public)
    assert len([line for line in lines if line.startswith("forgot the last timestamp of ")]) == 1
    town.bob.take(initiation(stamp=50), town.wire.to_left)
    assert len(town.wire.to_left.take()) == 1
    assert town.still_works()
